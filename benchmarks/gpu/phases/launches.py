"""What a call costs that has next to nothing to do: its Python, its launches, each backend's.

Times are of calls one after the other, without graphs, on tensors so small that the device waits
for the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu import clock
from benchmarks.gpu.phase import Context, Row
from benchmarks.gpu.work import fused_backend
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import ALL, OpCases
from vaekernels.bench.op_inputs.conv3x3 import RESNET

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
    generator = torch.Generator(context.device).manual_seed(0)
    with torch.device(context.device):
        inputs = [tensor.float() for tensor in cases.inputs(shape, torch.float32, generator)]
    row: Row = {"refused_by": {}}
    calls = {"eager": _call(cases.eager, cases, inputs, backward)}
    for backend in registry.RANKING[context.device]:
        if backend == "reference":
            continue
        found, why = fused_backend(cases.op, context.device, torch.float32, backend)
        if found is None:
            row["refused_by"][backend] = why
        else:
            function = functools.partial(cases.ours, backend=backend)
            calls[backend] = _call(function, cases, inputs, backward)
    contenders = {name: clock.plain(call) for name, call in calls.items()}
    return row | clock.medians(clock.timings(contenders, seconds=seconds))


def _call(
    function: Callable[..., object], cases: OpCases, inputs: list[Tensor], backward: bool
) -> Callable[[], object]:
    if not backward:
        return torch.no_grad()(lambda: function(*inputs))
    wanted = [inputs[index].detach().requires_grad_() for index in cases.differentiable]
    leaves = dict(zip(cases.differentiable, wanted, strict=True))
    tensors = [leaves.get(index, tensor) for index, tensor in enumerate(inputs)]

    def call() -> object:
        results = function(*tensors)
        first = results[0] if isinstance(results, tuple) else results
        assert isinstance(first, Tensor)
        return torch.autograd.grad(first.sum(), wanted)

    return call
