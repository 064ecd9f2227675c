"""Results against float64, with the rule of the tests: twice eager's error, and a few roundings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.phase import Row
from vaekernels.bench.conv import HIGH_PROMISE
from vaekernels.bench.op_inputs import CONV, error, summed_terms, tolerance

MEDIUM_PROMISE = 2e-3  # of the tier "medium", where float32 is multiplied as tf32


class Verdict(NamedTuple):
    """How far a result is from the exact one.

    Attributes:
        error: the largest over its tensors: largest difference over largest magnitude.
        eager_error: the same of plain PyTorch in the same dtype.
        excess: the largest over its tensors of the error over what is allowed; NaN if one is.
    """

    error: float
    eager_error: float
    excess: float

    @property
    def ok(self) -> bool:
        """A NaN is not."""
        return self.excess <= 1.0

    def row(self) -> Row:
        """Its columns of a row."""
        return {**self._asdict(), "ok": self.ok}


def snapshot(call: Callable[[], Any]) -> list[Tensor]:
    """Copies of what a call gives, which the next call may overwrite."""
    return [leaf.detach().clone() for leaf in tree_leaves(call()) if isinstance(leaf, Tensor)]


def compare(
    got: Sequence[Tensor],
    eager: Sequence[Tensor],
    exact: Sequence[Tensor],
    shape: Sequence[int],
    floor: float = 0.0,
) -> Verdict:
    """Judge ``got``.

    Args:
        got: the result under test.
        eager: the same by plain PyTorch in the same dtype.
        exact: the same in float64.
        shape: of the op's first input.
        floor: an error that is allowed whatever eager's is.
    """
    verdicts = [_compare(*each, shape, floor) for each in zip(got, eager, exact, strict=True)]
    return Verdict(*(_largest(column) for column in zip(*verdicts, strict=True)))


def floor(op: str, dtype: torch.dtype, precision: str = "high") -> float:
    """What an op promises whatever eager's error is: convolutions do, in float32 and by tier."""
    if op not in CONV or dtype != torch.float32:
        return 0.0
    return MEDIUM_PROMISE if precision == "medium" else HIGH_PROMISE


def distance(got: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Relative L2 distance over all tensors together."""
    squares = [
        torch.stack([(a.double() - b.double()).square().sum(), b.double().square().sum()])
        for a, b in zip(got, exact, strict=True)
    ]
    difference, size = torch.stack(squares).sum(0).tolist()
    return math.sqrt(difference / size)


def judged_by_distance(
    got: Sequence[Tensor], eager: Sequence[Tensor], exact: Sequence[Tensor]
) -> Verdict:
    """Judge the results of a whole model, whose roundings add up, by their distance."""
    ours, theirs = distance(got, exact), distance(eager, exact)
    return Verdict(ours, theirs, ours / tolerance(theirs, torch.float32))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Uninitialised memory is NaN, so that what is not written shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(False)


def _compare(
    got: Tensor, eager: Tensor, exact: Tensor, shape: Sequence[int], floor: float
) -> Verdict:
    if got.shape != exact.shape:
        raise ValueError(f"expected shape {tuple(exact.shape)}, got {tuple(got.shape)}")
    ours, theirs = error(got, exact), error(eager, exact)
    allowed = tolerance(theirs, got.dtype, summed_terms(got, shape))
    return Verdict(ours, theirs, ours / max(allowed, floor))


def _largest(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).max())  # keeps a NaN
