"""``vaekernels bench latent``: the latent ops and the losses against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench.memory import peak_bytes
from vaekernels.bench.op_inputs import LATENT, OpCases
from vaekernels.bench.targets import Row
from vaekernels.bench.timing import interleaved

OPS = tuple(LATENT)
DIRECTIONS = ("forward", "forward+backward")


@dataclass(frozen=True)
class Work:
    """What one row measures: an op at one of its cases, in one direction."""

    group: str
    case: str
    direction: str
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        """Of the row, for people."""
        return f"{self.group}, {self.case}, {self.direction}"


def works(
    only: Sequence[str] = (), *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Work]:
    """The rows of the ops in ``only``, or of all.

    Args:
        only: names of ops.
        device: where to measure.
        dtype: of the inputs.
    """
    return [
        Work(op, case, direction, device, dtype)
        for op in OPS
        if not only or op in only
        for case in LATENT[op].shapes
        for direction in DIRECTIONS
    ]


def measure(work: Work, *, seconds: float) -> Row:
    """Measure one row.

    Args:
        work: what to measure.
        seconds: of measuring, both sides together.

    Returns:
        ``op``, ``case``, ``shape``, ``direction``, the median microseconds ``eager_us`` and
        ``ours_us``, their ``ratio``, and the peak bytes that each held.
    """
    cases = LATENT[work.group]
    shape = cases.shapes[work.case]
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(t.to(work.device) for t in cases.inputs(shape, work.dtype, generator))
    calls = {
        "eager": call(cases.eager, cases, inputs, work.direction),
        "ours": call(cases.ours, cases, inputs, work.direction),
    }
    medians = interleaved(calls, seconds=seconds)
    return {
        "op": cases.op,
        "case": work.case,
        "shape": list(shape),
        "direction": work.direction,
        "eager_us": medians["eager"] * 1e6,
        "ours_us": medians["ours"] * 1e6,
        "ratio": medians["eager"] / medians["ours"],
        "eager_peak_bytes": peak_bytes(calls["eager"]),
        "ours_peak_bytes": peak_bytes(calls["ours"]),
    }


def call(
    function: Callable[..., object],
    cases: OpCases,
    inputs: tuple[Tensor, ...],
    direction: str,
) -> Callable[[], object]:
    """``function`` on ``inputs`` as a call without arguments, in one direction."""
    if direction == "forward":

        def forward() -> object:
            with torch.no_grad():
                return function(*inputs)

        return forward

    leaves = tuple(
        t.detach().clone().requires_grad_(i in cases.differentiable) for i, t in enumerate(inputs)
    )
    wanted = [leaves[i] for i in cases.differentiable]
    grads = [torch.randn_like(output) for output in tree_leaves(function(*leaves))]

    def forward_backward() -> object:
        return torch.autograd.grad(tree_leaves(function(*leaves)), wanted, grads)

    return forward_backward
