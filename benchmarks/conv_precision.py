"""Errors of the convolutions' two precision tiers against float64, beside eager PyTorch's.

Writes results/cpu/conv_precision.json, from which the table in docs/convolutions.md is made
(``make readme``). Usage: ``python benchmarks/conv_precision.py``
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import vaekernels as vk
from vaekernels.bench import tables
from vaekernels.bench.op_inputs import CONV, ConvShape, OpCases, error
from vaekernels.bench.workloads import LAYOUTS, Inputs, call, inputs_of, laid_out
from vaekernels.runtime import cpu_info

PATH = Path(__file__).parent / "results" / "cpu" / "conv_precision.json"
TIERS = ("high", "highest")
RESULTS = ("y", "gradient of x", "gradient of weight")
# Square images; as many channels out as in.
SHAPES: dict[str, tuple[ConvShape, ...]] = {
    "conv3x3": (ConvShape(2, 128, 128, 64, 64), ConvShape(1, 512, 512, 32, 32)),
    "upsample_conv3x3": (ConvShape(2, 128, 128, 32, 32), ConvShape(1, 512, 512, 16, 16)),
    "downsample_conv3x3": (ConvShape(2, 128, 128, 64, 64), ConvShape(1, 512, 512, 32, 32)),
    "downsample_conv4x4": (ConvShape(16, 64, 128, 32, 32), ConvShape(16, 256, 512, 16, 16)),
    "conv_transpose4x4": (ConvShape(16, 128, 64, 16, 16), ConvShape(16, 512, 256, 8, 8)),
}


def results(function: Callable[..., Tensor], cases: OpCases, inputs: Inputs) -> list[Tensor]:
    """Y and the gradients of x and weight."""
    y = call(function, cases, inputs, "training forward")().detach()
    return [y, *call(function, cases, inputs, "backward")()[:2]]


def measure(op: str, shape: ConvShape) -> list[dict[str, object]]:
    """A row for each result: its error in both tiers, and eager's in its worse layout."""
    cases = CONV[op]
    inputs = inputs_of(cases, shape, torch.Generator().manual_seed(0), grads=True)
    exact = results(cases.eager, cases, {name: x.double() for name, x in inputs.items()})

    def errors(function: Callable[..., Tensor], inputs: Inputs) -> list[float]:
        return [error(*pair) for pair in zip(results(function, cases, inputs), exact, strict=True)]

    by_layout = [errors(cases.eager, laid_out(inputs, layout)) for layout in LAYOUTS]
    found = {"eager": [max(pair) for pair in zip(*by_layout, strict=True)]}
    for tier in TIERS:
        with vk.set_conv_precision(tier):
            found[tier] = errors(cases.ours, inputs)
    return [
        {"op": op, "shape": list(shape), "result": name} | {who: found[who][k] for who in found}
        for k, name in enumerate(RESULTS)
    ]


def main() -> None:
    rows = [row for op, shapes in SHAPES.items() for s in shapes for row in measure(op, s)]
    tables.write_json(PATH, rows, cpu_info.describe(), {"suite": "conv_precision"}, {})


if __name__ == "__main__":
    main()
