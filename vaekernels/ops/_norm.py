"""Argument checks of the ops that normalise groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaekernels.ops._checks import check_per_channel


def check_group_norm(
    op: str,
    x: Tensor,
    weight: object,
    bias: object,
    groups: int,
    eps: float,
    *,
    prefix: str = "",
    check_dtype: Callable[[str, str, Tensor, Tensor], None] | None = None,
) -> None:
    """Check the arguments of a group normalisation of ``x``.

    Args:
        op: name of the op, for the errors.
        x: (N, C, ...), a floating tensor.
        weight: scale of each channel, (C,).
        bias: shift of each channel, (C,).
        groups: number of groups; divides C.
        eps: added to the variance; not negative. With 0, as in PyTorch, a group without variance
            is divided by 0.
        prefix: prepended to the names of the arguments in the errors.
        check_dtype: check of the dtype of ``weight`` and ``bias``, with the arguments (op, name,
            tensor, x). None: the dtype of x, or float32 where x has 16 bits.
    """
    channels = x.shape[1]
    for name, value in ((f"{prefix}weight", weight), (f"{prefix}bias", bias)):
        tensor = check_per_channel(op, name, value, channels, x)
        (check_dtype or _check_dtype)(op, name, tensor, x)
    if isinstance(groups, bool) or not isinstance(groups, (int, torch.SymInt)):
        raise TypeError(f"{op}: {prefix}groups must be an integer; got {type(groups).__name__}")
    if groups < 1 or channels % groups != 0:
        raise ValueError(
            f"{op}: {prefix}groups must divide the {channels} channels of x; got {groups}"
        )
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"{op}: {prefix}eps must be a float; got {type(eps).__name__}")
    if not eps >= 0.0:
        raise ValueError(f"{op}: {prefix}eps must not be negative; got {eps}")


def _check_dtype(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.dtype != x.dtype and (tensor.dtype != torch.float32 or x.dtype == torch.float64):
        raise TypeError(
            f"{op}: {name} must have the dtype of x, {x.dtype}, or be float32 where x has 16 "
            f"bits; got {tensor.dtype}"
        )
