"""Results against float64, by the rule of the tests: twice eager's error, and a few roundings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench.op_inputs import CONV, error, summed_terms, tolerance

# Error over the largest magnitude that a float32 convolution stays below, whatever eager's error
# is, by precision tier ("highest" is as exact as eager).
CONV_ERROR = {"high": 2e-5, "medium": 2e-3}


class Verdict(NamedTuple):
    """Distance of a result from the exact one.

    Attributes:
        error: the largest over its tensors: largest difference over largest exact magnitude.
        eager_error: the same of plain PyTorch in the same dtype.
        allowed: the error that the tensor closest to its limit may have.
        excess: the largest over its tensors of error over allowed error; NaN if one is.
    """

    error: float
    eager_error: float
    allowed: float
    excess: float

    @property
    def ok(self) -> bool:
        """Whether every error is allowed; a NaN is not."""
        return self.excess <= 1.0

    @property
    def wrong(self) -> str:
        """The error as a message."""
        return f"error {self.error:.1e} against float64, allowed {self.allowed:.1e}"

    def row(self) -> dict[str, Any]:
        """Its columns of a row of the GPU suite."""
        return {**self._asdict(), "ok": self.ok}


def snapshot(call: Callable[[], Any]) -> list[Tensor]:
    """Copies of the tensors that a call returns, which the next call may overwrite."""
    return [leaf.detach().clone() for leaf in tree_leaves(call()) if isinstance(leaf, Tensor)]


def compare(
    got: Sequence[Tensor],
    eager: Sequence[Tensor],
    exact: Sequence[Tensor],
    shape: Sequence[int],
    floor: float = 0.0,
) -> Verdict:
    """Compare the results of an op, tensor by tensor.

    Args:
        got: the result under test.
        eager: the same by plain PyTorch in the same dtype.
        exact: the same in float64.
        shape: of the op's first input.
        floor: an error that is allowed whatever eager's is.

    Raises:
        ValueError: a tensor of ``got`` has another shape than its exact counterpart.
    """
    verdicts = []
    for tensor, plain, right in zip(got, eager, exact, strict=True):
        if tensor.shape != right.shape:
            raise ValueError(f"expected shape {tuple(right.shape)}, got {tuple(tensor.shape)}")
        errors = error(tensor, right), error(plain, right)
        limit = max(tolerance(errors[1], tensor.dtype, summed_terms(tensor, shape)), floor)
        verdicts.append(Verdict(*errors, limit, errors[0] / limit))
    errors, eager_errors, limits, excesses = zip(*verdicts, strict=True)
    excess = _largest(excesses)
    closest = next(i for i, each in enumerate(excesses) if not each < excess)
    return Verdict(_largest(errors), _largest(eager_errors), limits[closest], excess)


def compare_models(
    got: Sequence[Tensor],
    eager: Sequence[Tensor],
    exact: Sequence[Tensor],
    allowed: float | None = None,
) -> Verdict:
    """Compare the results of a whole model, whose roundings add up, by their L2 distance.

    Args:
        got: the result under test.
        eager: the same by plain PyTorch.
        exact: the same in float64.
        allowed: the distance; None: by eager's.
    """
    ours, plain = distance(got, exact), distance(eager, exact)
    limit = tolerance(plain, torch.float32) if allowed is None else allowed
    return Verdict(ours, plain, limit, ours / limit)


def distance(got: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Relative L2 distance over all tensors together."""
    squares = [
        torch.stack([(a.double() - b.double()).square().sum(), b.double().square().sum()])
        for a, b in zip(got, exact, strict=True)
    ]
    difference, size = torch.stack(squares).sum(0).tolist()
    return math.sqrt(difference / size)


def conv_floor(op: str, dtype: torch.dtype, precision: str = "high") -> float:
    """The error that a convolution may have whatever eager's is: in float32, by its tier."""
    return CONV_ERROR.get(precision, 0.0) if op in CONV and dtype == torch.float32 else 0.0


def _largest(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).max())  # keeps a NaN
