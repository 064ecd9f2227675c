"""The overhead of a call on the host, eager and with each backend.

Calls follow each other without CUDA graphs, on tensors so small that the device waits for the host.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from benchmarks.gpu.kernels import fused_backend
from benchmarks.gpu.phase import Context, Row
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import ALL, RESNET, OpCases
from vaekernels.bench.timing import columns, timings
from vaekernels.bench.workloads import call, draw, inputs_of

_IMAGE = (1, 32, 4, 4)
_CONV = (1, 32, 32, 4, 4)
_WORKS: tuple[tuple[OpCases, tuple[int, ...], bool], ...] = (
    (ALL["rsample_kl"], (16, 16), False),
    (ALL["rsample_kl"], (16, 16), True),
    (ALL["bernoulli_nll"], (16, 16), True),
    (ALL["group_norm_silu"], _IMAGE, False),
    (ALL["group_norm_silu"], _IMAGE, True),
    (ALL["upsample_conv3x3"], _CONV, False),
    (RESNET, _CONV, False),
    (RESNET, _CONV, True),
)


def run(context: Context) -> Iterator[Row]:
    yield from context.each(
        _WORKS, _name, lambda work, seconds: measure(context, *work, seconds=seconds), most=0.5
    )


def _name(work: tuple[OpCases, tuple[int, ...], bool]) -> str:
    cases, shape, backward = work
    kind = "conv3x3 in a block" if cases is RESNET else cases.op
    size = " x ".join(map(str, shape))
    return f"{kind}, {size}, {'forward+backward' if backward else 'forward'}"


def measure(
    context: Context, cases: OpCases, shape: tuple[int, ...], backward: bool, *, seconds: float
) -> Row:
    """Milliseconds of one call by eager PyTorch, and by each backend that has kernels."""
    direction = "forward+backward" if backward else "forward"
    make_inputs = functools.partial(inputs_of, cases, shape, grads=backward)
    inputs = draw(make_inputs, context.device, torch.float32)
    row: Row = {"refused_by": {}}
    calls = {"eager": call(cases.eager, cases, inputs, direction)}
    for backend in registry.RANKING[context.device]:
        if backend == "reference":
            continue
        found, why = fused_backend(cases.op, context.device, torch.float32, backend)
        if found is None:
            row["refused_by"][backend] = why
        else:
            function = functools.partial(cases.ours, backend=backend)
            calls[backend] = call(function, cases, inputs, direction)
    return row | columns(timings(calls, seconds=seconds))
