"""Errors of the convolutions' two precision tiers against float64, beside eager PyTorch's.

Writes results/cpu/conv_precision.json, from which the table in docs/convolutions.md is made
(``make readme``). Usage: ``python benchmarks/conv_precision.py``
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import vaekernels as vk
from vaekernels.bench import tables
from vaekernels.bench.op_inputs import CONV, ConvShape, error
from vaekernels.runtime import cpu_info

PATH = Path(__file__).parent / "results" / "cpu" / "conv_precision.json"
TIERS = ("high", "highest")
LAYOUTS = (torch.contiguous_format, torch.channels_last)
RESULTS = ("y", "gradient of x", "gradient of weight")
# Square images; as many channels out as in.
SHAPES: dict[str, tuple[ConvShape, ...]] = {
    "conv3x3": (ConvShape(2, 128, 128, 64, 64), ConvShape(1, 512, 512, 32, 32)),
    "upsample_conv3x3": (ConvShape(2, 128, 128, 32, 32), ConvShape(1, 512, 512, 16, 16)),
    "downsample_conv3x3": (ConvShape(2, 128, 128, 64, 64), ConvShape(1, 512, 512, 32, 32)),
    "downsample_conv4x4": (ConvShape(16, 64, 128, 32, 32), ConvShape(16, 256, 512, 16, 16)),
    "conv_transpose4x4": (ConvShape(16, 128, 64, 16, 16), ConvShape(16, 512, 256, 8, 8)),
}


def results(function: object, tensors: tuple[Tensor, ...], grad: Tensor | None) -> list[Tensor]:
    """Y and the gradients of x and weight."""
    x, weight, bias = (tensor.detach().requires_grad_() for tensor in tensors)
    y = function(x, weight, bias)  # type: ignore[operator]
    if grad is None:
        return [y]
    return [y, *torch.autograd.grad(y, (x, weight), grad.to(y.dtype))]


def measure(op: str, shape: ConvShape) -> list[dict[str, object]]:
    """A row for each result: its error in both tiers, and eager's in its worse layout."""
    generator = torch.Generator().manual_seed(0)
    cases = CONV[op]
    tensors = cases.inputs(shape, torch.float32, generator)
    double = tuple(tensor.double() for tensor in tensors)
    (y,) = results(cases.eager, double, None)
    grad = torch.randn(y.shape, generator=generator)
    exact = results(cases.eager, double, grad)
    found: dict[str, list[float]] = {"eager": [0.0] * len(RESULTS)}
    for layout in LAYOUTS:
        laid_out = tuple(t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in tensors)
        eager = results(cases.eager, laid_out, grad.contiguous(memory_format=layout))
        errors = [error(a, b) for a, b in zip(eager, exact, strict=True)]
        found["eager"] = [max(pair) for pair in zip(found["eager"], errors, strict=True)]
    for tier in TIERS:
        with vk.set_conv_precision(tier):
            ours = results(cases.ours, tensors, grad)
        found[tier] = [error(a, b) for a, b in zip(ours, exact, strict=True)]
    return [
        {"op": op, "shape": list(shape), "result": name} | {who: found[who][k] for who in found}
        for k, name in enumerate(RESULTS)
    ]


def main() -> None:
    rows = [row for op, shapes in SHAPES.items() for s in shapes for row in measure(op, s)]
    tables.write_json(PATH, rows, cpu_info.describe(), {"suite": "conv_precision"}, {})


if __name__ == "__main__":
    main()
