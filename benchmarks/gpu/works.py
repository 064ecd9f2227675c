"""The workloads of the phase ``ops``, and the measurement of one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk
from benchmarks.gpu.kernels import fused_backend, tap_gemm
from benchmarks.gpu.phase import Row
from vaekernels.bench import conv
from vaekernels.bench.conv_gradients import (
    CONV3X3,
    DOWNSAMPLE3X3,
    DOWNSAMPLE4X4,
    TRANSPOSE4X4,
    UPSAMPLE,
    Convolution,
)
from vaekernels.bench.op_inputs import LATENT, NORM, OpCases
from vaekernels.bench.timing import Call, columns, copies_beyond_cache, graph_replay, timings
from vaekernels.bench.workloads import Inputs, Workload, of_op

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
STRIDED = (DOWNSAMPLE3X3[0], DOWNSAMPLE4X4, TRANSPOSE4X4)
LOSSES = (
    ("bernoulli_nll", "photo_256px_b8"),
    ("gaussian_nll", "photo_256px_b8"),
    ("laplace_nll", "photo_256px_b8"),
    ("gaussian_kl", "sd3_latent_256px_b256"),
)
_PASSES = {"forward": 3, "backward": 5}


def works(tiny: bool) -> list[Workload]:
    """The workloads, those of the targets first; ``tiny``: a part of them, small."""
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
        *(latent(op, "losses", LATENT[op].shapes[case], "forward+backward") for op, case in LOSSES),
        *(convolution("strided", op, 8, (128, 128, 128)) for op in STRIDED),
    ]


def measure(work: Workload, seconds: float) -> Row:
    """Check, then time; a wrong result of ours, or an op without kernels, is not timed.

    Returns:
        A row: the workload; ``backend``, or ``refused`` with the reasons; ``error``,
        ``eager_error``, ``allowed``, ``excess``, ``ok``; ``ms`` and ``spread`` of each side; where
        ``passes`` is known ``gbps``, the rate of ours if it makes no more passes.
    """
    inputs = work.draw()
    row: Row = {"group": work.group, "op": work.op, "case": work.case, "direction": work.direction}
    backend, refused = fused_backend(work.op, work.device, work.dtype, work.backend)
    ours = None
    if backend is None:
        row["refused"] = refused
    else:
        # A CUDA graph needs the seed on the device.
        noise = {name: torch.tensor(seed, device=work.device) for name, seed in work.noise.items()}
        ours = partial(work.ours, backend=backend, **noise)
        verdict = work.check(ours, inputs)
        row |= {"backend": backend, **verdict.row()}
        ours = ours if verdict.ok else None
    torch.cuda.empty_cache()
    sets = copies_beyond_cache(inputs, work.device)
    row["buffers"] = len(sets)
    contenders = {
        name: graph_replay(make, sets, work.device) for name, make in work.makers(ours).items()
    }
    row |= columns(timings(contenders, seconds=seconds))
    if work.passes is not None and ours is not None:
        first = next(iter(inputs.values()))
        row["gbps"] = work.passes * first.numel() * first.element_size() / row["ms"]["ours"] / 1e6
    return row


def latent(op: str, group: str, shape: tuple[int, ...], direction: str) -> Workload:
    """An op on rows."""
    passes = _PASSES.get(direction) if op == "rsample_kl" else None
    return of_op(f"{op} {group}", LATENT[op], shape, direction, passes=passes)


def group_norm(batch: int, channels: int, size: int, direction: str) -> Workload:
    """GroupNorm and SiLU of square images."""
    cases, shape = NORM["group_norm_silu"], (batch, channels, size, size)
    passes = _PASSES[direction]
    return of_op(f"group_norm b{batch}", cases, shape, direction, images=True, passes=passes)


def convolution(
    group: str,
    op: Convolution,
    batch: int,
    layer: tuple[int, int, int],
    backend: str | None = None,
) -> Workload:
    """A convolution's forward: channels in and out, and the pixels of a side of its input.

    With ``backend="triton"`` our own kernel runs, not cuDNN.
    """
    incoming, outgoing, size = layer
    work = conv.convolution(group, op, (batch, incoming, size), outgoing)
    case = f"{batch} x {incoming}->{outgoing} x {size}px"
    if backend == "triton":
        work = replace(work, ours=partial(_by_tap_gemm, work.ours))
    return replace(work, case=case, backend=backend)


def _by_tap_gemm(ours: Any, inputs: Inputs, **options: Any) -> Call:
    call = ours(inputs, **options)

    def run() -> Any:
        with tap_gemm():
            return call()

    return run


def elbo(shape: tuple[int, ...], latents: int) -> Workload:
    """A Bernoulli likelihood and the KL, forward and backward."""

    def inputs(
        shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        logits, target = LATENT["bernoulli_nll"].inputs(shape, dtype, generator)
        moments = LATENT["rsample_kl"].inputs((shape[0], latents), dtype, generator)
        return logits, *moments, target

    cases = OpCases("bernoulli_nll", inputs, _our_elbo, _eager_elbo, (0, 1, 2))
    case = f"{' x '.join(map(str, shape))}, {latents} latents"
    return of_op("elbo", cases, shape, "forward+backward", case=case)


def _eager_elbo(logits: Tensor, mean: Tensor, logvar: Tensor, target: Tensor) -> Tensor:
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return (nll + kl) / len(logits)


def _our_elbo(
    logits: Tensor, mean: Tensor, logvar: Tensor, target: Tensor, **options: str
) -> Tensor:
    nll = vk.bernoulli_nll(logits, target, **options)
    return (nll + vk.gaussian_kl(mean, logvar, **options)).sum() / len(logits)
