"""What is done about results that are not finite: 16 bits hold fewer numbers than models make."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.nonfinite import NonFiniteError
from vaekernels.structures import map_tensors, tensors_of

CHOICES = (None, "raise", "retry_fp32")
_HALF = (torch.float16, torch.bfloat16)

Call = Callable[..., Any]


def checked_choice(owner: str, choice: Any) -> str | None:
    """``choice``, if it is one.

    Raises:
        ValueError: it is none of ``CHOICES``.
    """
    if choice not in CHOICES:
        raise ValueError(
            f"{owner}: on_nonfinite must be None, 'raise' or 'retry_fp32'; got {choice!r}"
        )
    return choice


def guarded(
    model: nn.Module,
    name: str,
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    choice: str | None,
) -> Any:
    """``call(*args, **kwargs)``; where a 16-bit tensor of it is not finite, what ``choice`` says.

    The result is looked at once, at the end, which waits for a GPU; with None, and where it cannot
    be read, not at all: while ``torch.compile`` traces, a CUDA graph is captured or a transform of
    ``torch.func`` is at work.

    Args:
        model: with the parameters that ``call`` uses.
        name: of what is called, for what is said.
        call: computes the result: tensors, in tuples, lists, mappings and dataclasses.
        args: of the call.
        kwargs: of the call.
        choice: one of ``CHOICES``.

    Raises:
        NonFiniteError: the result is not finite, and trying again is not allowed or in vain.
    """
    result = call(*args, **kwargs)
    found = None if choice is None else _not_finite(result)
    if found is None:
        return result
    place, tensor = found
    if choice == "raise":
        raise NonFiniteError(
            f"{name}: {_described(place, tensor)} is not finite; use a wider dtype (bfloat16 has "
            "float32's range), or on_nonfinite = 'retry_fp32'"
        )
    _warn_about_retry(name, tensor.dtype)
    dtypes = {place: tensor.dtype for place, tensor in tensors_of(result) if tensor.dtype in _HALF}
    result = _in_float32(model, call, args, kwargs, tensor.device.type)
    result = map_tensors(result, lambda place, tensor: tensor.to(dtypes.get(place, tensor.dtype)))
    found = _not_finite(result)
    if found is not None:
        raise NonFiniteError(
            f"{name}: {_described(*found)} is not finite, and neither is that of float32: "
            "look at the input and the weights (vk.detect_nonfinite finds the first op)"
        )
    return result


def _not_finite(result: Any) -> tuple[str, Tensor] | None:
    """The first 16-bit tensor of ``result`` that is not finite, and its place."""
    for place, tensor in tensors_of(result):
        if tensor.dtype in _HALF and _can_be_read(tensor) and not _is_finite(tensor):
            return place, tensor
    return None


def _described(place: str, tensor: Tensor) -> str:
    return f"the result{place and f' {place!r}'} in {tensor.dtype}"


def _can_be_read(tensor: Tensor) -> bool:
    if tensor.is_meta or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


class _Function(nn.Module):
    """A function with the parameters of a model, as a module."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def _in_float32(
    model: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], device: str
) -> Any:
    """The call with float32 copies of what has 16 bits; gradients reach the parameters."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    wide = {f"model.{name}": t.float() for name, t in named if t.dtype in _HALF}
    args, kwargs = map_tensors((args, kwargs), _widened)
    with torch.autocast(device, enabled=False):
        return torch.func.functional_call(_Function(model, call), wide, args, kwargs)


def _widened(place: str, tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def warn_if_slow(owner: str, x: Tensor) -> None:
    """Say, once, that 16 bits may be slow on the CPU, where ``x`` is computed in them.

    bfloat16 is fast on processors with instructions for it; float16 rarely is.
    """
    if torch.compiler.is_compiling() or x.dtype not in _HALF or x.device.type != "cpu":
        return
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if x.dtype == torch.float16 or not fast:
        _warn_about_slowness(owner, x.dtype)


@functools.cache
def _warn_about_slowness(owner: str, dtype: torch.dtype) -> None:
    """Once for each owner and dtype."""
    warnings.warn(
        f"{owner}: {dtype} on the CPU runs on PyTorch's own layers, which take up to 200 times "
        "the time of float32 there: call model.float(), or move the model to a GPU",
        stacklevel=6,
    )


@functools.cache
def _warn_about_retry(name: str, dtype: torch.dtype) -> None:
    """Once for each name and dtype."""
    warnings.warn(
        f"{name}: a result in {dtype} was not finite and was computed again in float32, which "
        "takes several times the time and twice the memory",
        stacklevel=6,
    )
