"""Argument checks shared by the ops: each names the argument, what was expected and what came."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATING = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})


def check_floating(op: str, name: str, value: object, expected: str = "a tensor") -> Tensor:
    """Return ``value`` if it is a dense floating-point tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be {expected}; got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise TypeError(
            f"{op}: {name} must be float64, float32, bfloat16 or float16; got {value.dtype}"
        )
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a dense tensor; got the layout {value.layout}")
    return value


def check_rows(op: str, name: str, tensor: object) -> None:
    """``tensor`` is a floating tensor with at least a batch dim."""
    tensor = check_floating(op, name, tensor)
    if tensor.ndim == 0:
        raise ValueError(f"{op}: {name} must have a batch dim, shape (B, ...); got a scalar")


def check_like(op: str, name: str, tensor: object, other_name: str, other: Tensor) -> None:
    """``tensor`` is a floating tensor with the shape and device of ``other``."""
    tensor = check_floating(op, name, tensor)
    if tensor.shape != other.shape:
        raise ValueError(
            f"{op}: {name} must have the shape of {other_name}, {tuple(other.shape)}; "
            f"got {tuple(tensor.shape)}"
        )
    check_device(op, name, tensor, other_name, other)


def check_per_channel(op: str, name: str, value: object, channels: int, x: Tensor) -> Tensor:
    """Return ``value`` if it is a floating tensor (channels,) on the device of ``x``."""
    tensor = check_floating(op, name, value)
    if tensor.shape != (channels,):
        raise ValueError(
            f"{op}: {name} must have shape ({channels},), one number per channel; "
            f"got {tuple(tensor.shape)}"
        )
    check_device(op, name, tensor, "x", x)
    return tensor


def check_device(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(
            f"{op}: {name} must be on the device of {other_name}, {other.device}; "
            f"got {tensor.device}"
        )


def broadcast(op: str, name: str, value: float | Tensor, other_name: str, other: Tensor) -> Tensor:
    """``value`` as a floating tensor: one element, or expanded to the shape of ``other``."""
    if isinstance(value, (int, float)):
        # On the host: kernels take it by value, and no default device may move it elsewhere.
        dtype = torch.promote_types(other.dtype, torch.float32)
        return torch.full((), value, dtype=dtype, device="cpu")
    value = check_floating(op, name, value, "a float or a tensor")
    if value.ndim > 0:
        check_device(op, name, value, other_name, other)
    if value.numel() == 1:
        return value.reshape(())
    try:
        return value.expand(other.shape)
    except RuntimeError:
        raise ValueError(
            f"{op}: {name} must broadcast to the shape of {other_name}, {tuple(other.shape)}; "
            f"got {tuple(value.shape)}"
        ) from None


def check_sample_ids(op: str, sample_ids: object, batch: int) -> None:
    if not isinstance(sample_ids, Tensor) or sample_ids.dtype != torch.int64:
        got = sample_ids.dtype if isinstance(sample_ids, Tensor) else type(sample_ids).__name__
        raise TypeError(f"{op}: sample_ids must be an int64 tensor; got {got}")
    if sample_ids.shape != (batch,):
        raise ValueError(
            f"{op}: sample_ids must have shape ({batch},), one id per row; "
            f"got {tuple(sample_ids.shape)}"
        )


def check_step(op: str, step: int) -> None:
    if isinstance(step, (float, str)):
        raise TypeError(f"{op}: step must be an integer; got {type(step).__name__}")
    if not 0 <= step < 2**32:
        raise ValueError(f"{op}: step must be in [0, 2**32); got {step}")


def checked_clamp(op: str, value: Any) -> tuple[float, float]:
    """``logvar_clamp`` as its two bounds; None is unbounded."""
    if value is None:
        return -math.inf, math.inf
    fits = isinstance(value, (tuple, list)) and len(value) == 2
    if not fits or not all(isinstance(bound, (int, float)) for bound in value):
        raise TypeError(f"{op}: logvar_clamp must be (low, high) or None; got {value!r}")
    low, high = value
    if not low <= high:
        raise ValueError(f"{op}: logvar_clamp must be (low, high); got {value}")
    return low, high


def derivatives_are_transformed() -> bool:
    """Whether forward-mode derivatives or transforms of torch.func are active.

    Tensors may then be wrappers without memory of their own.
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
