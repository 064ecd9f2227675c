"""Random calls of every op with kernels, forward and backward: for a library with a sanitizer.

python exercise.py SEED CALLS. Results are compared with the reference, coarsely: memory is what
counts here. Prints each call before it is made.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from torch import Tensor

import vaekernels as vk
from vaekernels.backends import extension as _extension

SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 33)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 14, 15, 16, 17, 20, 31, 33, 48, 65)
ELEMENTS = 60_000  # of a convolution's larger image


def laid_out(rng: random.Random, tensor: Tensor) -> Tensor:
    """The same numbers in other strides; views end where their storage does."""
    if tensor.dim() < 2:
        return tensor
    kind = rng.choice(("dense", "channels_last", "transposed", "slice"))
    if kind == "channels_last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if kind == "transposed":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if kind == "slice":
        return torch.cat([tensor, tensor], -1)[..., tensor.shape[-1] :]
    return tensor


def convolution(rng: random.Random) -> tuple[str, list[Tensor | None], dict[str, object]]:
    """An op, its tensors and its options."""
    op = rng.choice(
        ["conv3x3"] * 3
        + ["upsample_conv3x3", "downsample_conv3x3", "downsample_conv4x4", "conv_transpose4x4"]
    )
    batch, inputs, outputs = rng.choice((1, 1, 2, 3)), rng.choice(CHANNELS), rng.choice(CHANNELS)
    height, width = (max(2, rng.choice(SIDES)) for _ in range(2))
    while batch * height * width * max(inputs, outputs) > ELEMENTS:
        height, width = max(2, height // 2), max(2, width // 2)
    kernel = 4 if "4x4" in op else 3
    shape = (inputs, outputs) if op == "conv_transpose4x4" else (outputs, inputs)
    weight = torch.randn(*shape, kernel, kernel) / (inputs * kernel**2) ** 0.5
    bias = torch.randn(outputs) if rng.random() < 0.6 else None
    options: dict[str, object] = {
        "activation": rng.choice((None, "relu", "silu", "leaky_relu")),
        "precision": rng.choice(("high", "highest")),
    }
    if op == "downsample_conv3x3":
        options["padding"] = rng.choice(("asymmetric", "symmetric"))
    if op == "conv3x3" and rng.random() < 0.4:
        options["residual"] = laid_out(rng, torch.randn(batch, outputs, height, width))
    if op == "conv3x3" and rng.random() < 0.4:
        groups = rng.choice([g for g in (1, 2, inputs) if inputs % g == 0])
        options["norm"] = vk.NormPrologue(torch.randn(inputs), torch.randn(inputs), groups)
    x = torch.randn(batch, inputs, height, width)
    return op, [laid_out(rng, x), laid_out(rng, weight), bias], options


def normalisation(rng: random.Random) -> tuple[str, list[Tensor | None], dict[str, object]]:
    channels = rng.choice((1, 4, 6, 20, 33, 64))
    groups = rng.choice([g for g in (1, 2, channels) if channels % g == 0])
    sides = [rng.choice(SIDES) for _ in range(rng.choice((0, 1, 2)))]
    x = torch.randn(rng.choice((1, 2, 3)), channels, *sides)
    options = {"groups": groups, "activation": rng.choice((None, "silu")), "eps": 1e-3}
    return (
        "group_norm_silu",
        [laid_out(rng, x), torch.randn(channels), torch.randn(channels)],
        (options),
    )


def latent(rng: random.Random) -> tuple[str, list[Tensor | None], dict[str, object]]:
    batch = rng.choice((0, 1, 2, 5, 33))
    shape = (batch, *rng.choice([(), (1,), (3,), (12,), (20,), (257,), (4, 3, 5), (8197,)]))
    dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16))
    op = rng.choice(("rsample_kl", "gaussian_kl", "bernoulli_nll", "gaussian_nll", "laplace_nll"))
    count = 3 if op in ("gaussian_nll", "laplace_nll") else 2
    tensors = [laid_out(rng, torch.rand(shape).to(dtype)) for _ in range(count)]
    if count == 3 and rng.random() < 0.5:
        tensors[2] = torch.tensor(0.5)
    if op != "rsample_kl":
        return op, [*tensors], {}
    options: dict[str, object] = {"seed": rng.randrange(2**40), "step": rng.randrange(9)}
    if rng.random() < 0.5:
        options["sample_ids"] = torch.arange(2 * batch)[::2]
    return op, [*tensors], options


def outputs_and_gradients(
    op: str, tensors: list[Tensor | None], options: dict[str, object], backend: str
) -> list[Tensor]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    result = getattr(vk, op)(*leaves, **options, backend=backend)
    outputs = result if isinstance(result, tuple) else (result,)
    present = [leaf for leaf in leaves if leaf is not None]
    total = sum(y.float().square().sum() for y in outputs)
    return [y.detach() for y in outputs] + list(torch.autograd.grad(total, present))


def main(seed: int, calls: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    extension = _extension.load()
    print("library", Path(extension.__file__).resolve())
    for call in range(calls):
        extension.set_cpu_capability(rng.choice(extension.cpu_capabilities()))
        torch.set_num_threads(rng.choice((1, 1, 2, 3)))
        op, tensors, options = rng.choice((convolution, convolution, normalisation, latent))(rng)
        shapes = [None if t is None else (tuple(t.shape), t.stride()) for t in tensors]
        print(call, extension.cpu_capability(), torch.get_num_threads(), op, shapes, flush=True)
        got = outputs_and_gradients(op, tensors, options, "cpu")
        right = outputs_and_gradients(op, tensors, options, "reference")
        for a, b in zip(got[:1], right[:1], strict=True):
            assert a.numel() == 0 or (a - b).abs().max() <= 1e-2 * b.abs().max() + 1e-2, "wrong"
        with torch.no_grad():
            getattr(vk, op)(*tensors, **options, backend="cpu")
        if call % 20 == 0:
            vk.empty_cache()
    print("done")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
