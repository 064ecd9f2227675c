"""What the phase ``ops`` measures: the inputs, and both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

import vaekernels as vk
from benchmarks.gpu.work import Work, tap_gemm
from vaekernels.bench.convolutions import CONV3X3, UPSAMPLE, Convolution
from vaekernels.bench.op_inputs import CONV, LATENT, NORM, ConvShape, OpCases
from vaekernels.bench.workloads import Call, Inputs, forward

# Channels in, out, and pixels of a side: the 3x3 convolutions of the SD autoencoder at 512 px.
LAYERS = (
    (128, 128, 512),
    (256, 256, 256),
    (512, 512, 128),
    (512, 512, 64),
    (256, 128, 512),
    (512, 256, 256),
    (4, 512, 64),
    (128, 3, 512),
)
UPSAMPLED = ((256, 256, 256), (512, 512, 128), (512, 512, 64))
NORMALISED = ((128, 512), (256, 256), (512, 64))
_SEED = 5


def works(tiny: bool) -> list[Work]:
    """What is measured, the goals' first; ``tiny``: a part of it, small."""
    if tiny:
        return [
            latent("rsample_kl", "large", (4, 64), "forward"),
            latent("rsample_kl", "large", (4, 64), "backward"),
            elbo((2, 3, 8, 8), 16),
            group_norm(2, 32, 8, "forward"),
            convolution("conv", CONV3X3, 1, (8, 8, 8)),
            convolution("upsample", UPSAMPLE, 1, (8, 8, 8)),
        ]
    large = (4096, 16, 32, 32)
    return [
        latent("rsample_kl", "large", large, "forward"),
        latent("rsample_kl", "large", large, "backward"),
        latent("rsample_kl", "sd", (64, 4, 64, 64), "forward+backward"),
        elbo((64, 3, 64, 64), 128),
        elbo((8, 3, 256, 256), 4096),
        *(group_norm(batch, *shape, "forward") for batch in (1, 8) for shape in NORMALISED),
        *(group_norm(8, *shape, "backward") for shape in NORMALISED),
        *(convolution("upsample", UPSAMPLE, 1, layer) for layer in UPSAMPLED),
        *(convolution("conv", CONV3X3, 1, layer, backend="triton") for layer in LAYERS),
        *(
            latent(op, "losses", LATENT[op].shapes[case], "forward+backward")
            for op, case in (
                ("bernoulli_nll", "photo_256px_b8"),
                ("gaussian_nll", "photo_256px_b8"),
                ("laplace_nll", "photo_256px_b8"),
                ("gaussian_kl", "sd3_latent_256px_b256"),
            )
        ),
        *(convolution("strided", _of(op), 8, (128, 128, 128)) for op in _STRIDED),
    ]


_STRIDED = ("downsample_conv3x3", "downsample_conv4x4", "conv_transpose4x4")


def latent(op: str, group: str, shape: tuple[int, ...], direction: str) -> Work:
    """An op on rows."""
    cases = LATENT[op]
    noisy = not cases.deterministic_eager
    passes = {"forward": 3, "backward": 5}.get(direction) if noisy else None
    ours = _seeded(cases) if noisy else cases.ours
    mine = partial(_call, ours, cases.differentiable, direction)
    return Work(
        group=f"{op} {group}",
        op=op,
        case=" x ".join(map(str, shape)),
        direction=direction,
        inputs=partial(_inputs, cases, shape, direction),
        eager=partial(_call, cases.eager, cases.differentiable, direction),
        ours=mine,
        witness=partial(mine, backend="reference") if noisy else None,
        passes=passes,
    )


def group_norm(batch: int, channels: int, size: int, direction: str) -> Work:
    """GroupNorm and SiLU of square images."""
    cases = NORM["group_norm_silu"]
    shape = (batch, channels, size, size)
    return Work(
        group=f"group_norm b{batch}",
        op=cases.op,
        case=" x ".join(map(str, shape)),
        direction=direction,
        inputs=partial(_inputs, cases, shape, direction),
        eager=partial(_call, cases.eager, cases.differentiable, direction),
        ours=partial(_call, cases.ours, cases.differentiable, direction),
        images=True,
        passes={"forward": 3, "backward": 5}[direction],
    )


def convolution(
    group: str,
    op: Convolution,
    batch: int,
    layer: tuple[int, int, int],
    backend: str | None = None,
) -> Work:
    """A convolution's forward: channels in and out, and the pixels of a side of its input.

    On the backend "triton", asked for by name, it is our own product.
    """
    incoming, outgoing, size = layer
    shape = ConvShape(batch, incoming, outgoing, size, size)
    function = op.ours("high")

    def ours(inputs: Inputs, backend: str) -> Call:
        call = forward(partial(function, backend=backend), inputs)
        return call if backend != "triton" else _by_our_product(call)

    return Work(
        group=group,
        op=op.op,
        case=f"{batch} x {incoming}->{outgoing} x {size}px",
        direction="forward",
        inputs=partial(op.inputs, shape),
        eager=partial(forward, op.twin),
        ours=ours,
        images=True,
        backend=backend,
    )


def _by_our_product(call: Call) -> Call:
    def run() -> Any:
        with tap_gemm():
            return call()

    return run


def elbo(shape: tuple[int, ...], latents: int) -> Work:
    """A Bernoulli likelihood and the KL, forward and backward."""

    def inputs(generator: torch.Generator) -> dict[str, Tensor]:
        logits, target = LATENT["bernoulli_nll"].inputs(shape, torch.float32, generator)
        moments = LATENT["rsample_kl"].inputs((shape[0], latents), torch.float32, generator)
        return {"logits": logits, "mean": moments[0], "logvar": moments[1], "target": target}

    def make(loss: Callable[..., Tensor], inputs: Inputs) -> Call:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
        wanted = [leaves[name] for name in ("logits", "mean", "logvar")]
        leaves["target"].requires_grad_(False)

        def call() -> Any:
            value = loss(**leaves)
            return value, *torch.autograd.grad(value, wanted)

        return call

    return Work(
        group="elbo",
        op="bernoulli_nll",
        case=f"{' x '.join(map(str, shape))}, {latents} latents",
        direction="forward+backward",
        inputs=inputs,
        eager=partial(make, _eager_elbo),
        ours=lambda inputs, backend: make(partial(_our_elbo, backend=backend), inputs),
    )


def _eager_elbo(logits: Tensor, mean: Tensor, logvar: Tensor, target: Tensor) -> Tensor:
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return (nll + kl) / len(logits)


def _our_elbo(logits: Tensor, mean: Tensor, logvar: Tensor, target: Tensor, backend: str) -> Tensor:
    nll = vk.bernoulli_nll(logits, target, backend=backend)
    return (nll + vk.gaussian_kl(mean, logvar, backend=backend)).sum() / len(logits)


def _of(op: str) -> Convolution:
    transposed = op == "conv_transpose4x4"
    padding = "asymmetric" if op == "downsample_conv3x3" else None
    return Convolution(op, CONV[op].eager, stride=2, transposed=transposed, padding=padding)


def _seeded(cases: OpCases) -> Callable[..., Any]:
    """With a seed on the device, as a CUDA graph needs it."""
    seeds: dict[torch.device, Tensor] = {}

    def ours(*tensors: Tensor, **options: Any) -> Any:
        device = tensors[0].device
        if device not in seeds:
            seeds[device] = torch.tensor(_SEED, device=device)
        return cases.ours(*tensors, seed=seeds[device], **options)

    return ours


def _inputs(
    cases: OpCases, shape: tuple[int, ...], direction: str, generator: torch.Generator
) -> Mapping[str, Tensor]:
    """The op's inputs; for a backward also the gradients of its results, as ``grad0`` and on."""
    tensors = cases.inputs(shape, torch.float32, generator)
    named = {f"input{index}": tensor for index, tensor in enumerate(tensors)}
    if direction != "forward":
        results = tree_leaves(cases.eager(*(tensor.to("meta") for tensor in tensors)))
        for index, result in enumerate(results):
            named[f"grad{index}"] = torch.randn(result.shape, generator=generator)
    return named


def _call(
    function: Callable[..., Any],
    wanted: Sequence[int],
    direction: str,
    inputs: Inputs,
    **backend: str,
) -> Call:
    """``function`` of the inputs, or the gradients of those that are ``wanted``."""
    tensors = [tensor.detach() for name, tensor in inputs.items() if name.startswith("input")]
    if direction == "forward":

        @torch.no_grad()
        def call() -> Any:
            return function(*tensors, **backend)

        return call
    leaves = [tensors[index].requires_grad_() for index in wanted]
    recorded = tree_leaves(function(*tensors, **backend))
    grads = [inputs[f"grad{index}"].to(result.dtype) for index, result in enumerate(recorded)]
    if direction == "backward":
        return lambda: torch.autograd.grad(recorded, leaves, grads, retain_graph=True)
    return lambda: torch.autograd.grad(tree_leaves(function(*tensors, **backend)), leaves, grads)
