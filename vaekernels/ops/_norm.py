"""What the ops that normalise groups have in common: argument checks."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.ops._checks import _floating


def check_group_norm(
    op: str, x: Tensor, weight: object, bias: object, groups: int, eps: float, prefix: str = ""
) -> None:
    """``x`` can be normalised in ``groups`` groups, with these factors.

    Args:
        op: named in the errors.
        x: (N, C, ...), a floating tensor.
        weight: a factor per channel.
        bias: a number added per channel.
        groups: that the channels are split into.
        eps: added to the variance.
        prefix: before the names of the arguments in the errors.
    """
    for name, tensor in (("weight", weight), ("bias", bias)):
        _check_per_channel(op, prefix + name, tensor, x)
    if isinstance(groups, bool) or not isinstance(groups, (int, torch.SymInt)):
        raise TypeError(f"{op}: {prefix}groups must be an int; got {type(groups).__name__}")
    channels = x.shape[1]
    if groups < 1 or channels % groups != 0:
        raise ValueError(
            f"{op}: {prefix}groups must divide the channels of x, {channels}; got {groups}"
        )
    check_eps(op, f"{prefix}eps", eps)


def check_eps(op: str, name: str, eps: float) -> None:
    """``eps`` can be added to a variance; 0 is PyTorch's division by 0 where there is none."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"{op}: {name} must be a float; got {type(eps).__name__}")
    if not eps >= 0.0:
        raise ValueError(f"{op}: {name} must not be negative; got {eps}")


def _check_per_channel(op: str, name: str, value: object, x: Tensor) -> None:
    value = _floating(op, name, value)
    if value.shape != x.shape[1:2]:
        raise ValueError(
            f"{op}: {name} must have shape ({x.shape[1]},), one number per channel of x; "
            f"got {tuple(value.shape)}"
        )
    if value.device != x.device:
        raise ValueError(f"{op}: {name} must be on the device of x, {x.device}; got {value.device}")
    if value.dtype != x.dtype and (value.dtype != torch.float32 or x.dtype == torch.float64):
        raise TypeError(
            f"{op}: {name} must have the dtype of x, {x.dtype}, or be float32 where x has 16 "
            f"bits; got {value.dtype}"
        )
