"""``vaekernels bench latent``: the latent ops and the losses against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench.memory import peak_bytes
from vaekernels.bench.timing import interleaved
from vaekernels.cases import LATENT, OpCases

DIRECTIONS = ("forward", "forward+backward")


def count() -> int:
    """How many rows :func:`run` yields."""
    return sum(len(cases.shapes) for cases in LATENT.values()) * len(DIRECTIONS)


def run(
    *, device: str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 1.0
) -> Iterator[dict[str, object]]:
    """Measure every op and case; yields one row each, as it is done.

    Args:
        device: where to measure.
        dtype: of the inputs.
        seconds: of measuring per row.

    Returns:
        Rows with ``op``, ``case``, ``shape``, ``direction``, the median microseconds
        ``eager_us`` and ``ours_us``, their ``ratio``, and the peak bytes that each held.
    """
    for cases in LATENT.values():
        for name, shape in cases.shapes.items():
            generator = torch.Generator().manual_seed(0)
            inputs = tuple(t.to(device) for t in cases.inputs(shape, dtype, generator))
            for direction in DIRECTIONS:
                calls = {
                    "eager": call(cases.eager, cases, inputs, direction),
                    "ours": call(cases.ours, cases, inputs, direction),
                }
                medians = interleaved(calls, seconds=seconds)
                yield {
                    "op": cases.op,
                    "case": name,
                    "shape": list(shape),
                    "direction": direction,
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
