"""Definition of the ops that sum one number per row, (B, ...), ... -> (B,)."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from vaekernels.backends.definitions import OpDefinition, define


def define_row_sum(reference: Callable[..., Tensor]) -> None:
    """Define the op that ``reference`` implements: it has the same name and the same inputs.

    Every input is a tensor and receives a gradient; the result is one number per row.
    """
    inputs = list(inspect.signature(reference).parameters)
    arguments = ", ".join(f"Tensor {name}" for name in inputs)
    gradients = ", ".join(f"Tensor grad_{name}" for name in inputs)
    define(
        OpDefinition(
            name=reference.__name__,
            schema=f"({arguments}) -> Tensor",
            fake=_fake,
            reference=reference,
            backward_schema=f"(Tensor? grad, {arguments}, bool[{len(inputs)}] mask) "
            f"-> ({gradients})",
            differentiable=inputs,
        )
    )


def _fake(first: Tensor, *others: Tensor) -> Tensor:
    """An empty (B,) in the widest dtype of the inputs, at least float32."""
    dtype = torch.float32
    for tensor in (first, *others):
        dtype = torch.promote_types(dtype, tensor.dtype)
    return first.new_empty(first.shape[:1], dtype=dtype)
