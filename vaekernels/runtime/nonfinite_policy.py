"""What is done about results that are not finite: 16 bits hold fewer numbers than models make."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.runtime.detect_nonfinite import NonFiniteError
from vaekernels.utils.tree import map_tensors, tensors_of

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
    if choice is None or (found := _not_finite(result)) is None:
        return result
    if choice == "raise":
        raise _refused(name, *found)
    _warn_about_retry(name, found[1].dtype)
    return _retried(model, name, call, args, kwargs, result)


def guarded_images(
    model: nn.Module, name: str, call: Call, images: Tensor, choice: str | None
) -> Tensor:
    """:func:`guarded` for a batch: images whose results are finite are not computed again.

    Args:
        model: with the parameters that ``call`` uses.
        name: of what is called, for what is said.
        call: of a batch (B, ...): a tensor (B, ...), each image's result of that image alone.
        images: the batch.
        choice: one of ``CHOICES``.

    Raises:
        NonFiniteError: as :func:`guarded`.
    """
    result = call(images)
    if choice is None or (found := _not_finite(result)) is None:
        return result
    if choice == "raise":
        raise _refused(name, *found)
    _warn_about_retry(name, result.dtype)
    finite = torch.isfinite(result.detach()).flatten(1).all(1)
    bad, good = (~finite).nonzero().flatten(), finite.nonzero().flatten()
    again = _retried(model, name, call, (images[bad],), {}, result[bad])
    merged = result.detach().index_copy(0, bad, again)
    if result.requires_grad and len(good):
        # Backward through ``result`` would make 0 * inf of the images that were replaced.
        merged = merged.index_copy(0, good, call(images[good]))
    return merged


def _refused(name: str, place: str, tensor: Tensor) -> NonFiniteError:
    return NonFiniteError(
        f"{name}: {_described(place, tensor)} is not finite; use a wider dtype (bfloat16 has "
        "float32's range), or on_nonfinite = 'retry_fp32'"
    )


def _retried(
    model: nn.Module,
    name: str,
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> Any:
    """The call in float32, rounded to the dtypes of ``result``, which was not finite."""
    halves = {place: t for place, t in tensors_of(result) if t.dtype in _HALF}
    device = next(iter(halves.values())).device.type
    wide = _in_float32(model, call, args, kwargs, device)
    for place, tensor in tensors_of(wide):
        if place not in halves or not can_be_read(tensor):
            continue
        got = _described(place, halves[place])
        if not _is_finite(tensor):
            raise NonFiniteError(
                f"{name}: {got} is not finite, and neither is that of float32: "
                "look at the input and the weights (vk.detect_nonfinite finds the first op)"
            )
        dtype = halves[place].dtype
        if not _is_finite(tensor.to(dtype)):
            raise NonFiniteError(
                f"{name}: {got} is not finite; that of float32 is, but its magnitudes up to "
                f"{tensor.detach().abs().amax():g} are beyond {torch.finfo(dtype).max:g}, the "
                f"largest number of {dtype}: run the model in float32"
            )
    return map_tensors(wide, lambda place, t: t.to(halves[place].dtype) if place in halves else t)


def _not_finite(result: Any) -> tuple[str, Tensor] | None:
    """The place of the first 16-bit tensor of ``result`` that is not finite, and it."""
    for place, tensor in tensors_of(result):
        if tensor.dtype in _HALF and can_be_read(tensor) and not _is_finite(tensor):
            return place, tensor
    return None


def _described(place: str, tensor: Tensor) -> str:
    return f"the result{place and f' {place!r}'} in {tensor.dtype}"


def can_be_read(tensor: Tensor) -> bool:
    """Whether the values of ``tensor`` can be looked at, not while anything traces or captures."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    # Here: importing it takes half a second where torch has not done it.
    from torch._subclasses.fake_tensor import FakeTensor

    if isinstance(tensor, FakeTensor):
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
        f"{owner}: {dtype} on the CPU runs on PyTorch's own layers, which can take many times "
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
