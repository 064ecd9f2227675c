"""The ``on_nonfinite`` policy: what happens where a 16-bit result of a model is not finite."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.runtime.detect_nonfinite import NonFiniteError
from vaekernels.utils.tree import map_tensors, tensors_of

CHOICES = (None, "raise", "retry_fp32")
_HALF = (torch.float16, torch.bfloat16)

Call = Callable[..., Any]


def checked_choice(owner: str, choice: Any) -> str | None:
    """``choice``, checked.

    Raises:
        ValueError: ``choice`` is none of ``CHOICES``.
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
    """``call(*args, **kwargs)``, with the policy ``choice`` applied to its 16-bit tensors.

    The result is checked once, at the end, which synchronizes with a GPU. It is not checked with
    None, and where values cannot be read: while ``torch.compile`` traces, a CUDA graph is captured
    or a transform of ``torch.func`` is active.

    Args:
        model: the owner of the parameters that ``call`` uses.
        name: of the call, for messages.
        call: returns tensors, in tuples, lists, mappings and dataclasses.
        args: of the call.
        kwargs: of the call.
        choice: one of ``CHOICES``.

    Raises:
        NonFiniteError: the result is not finite, and with ``"retry_fp32"``, nor in float32.
    """
    result = call(*args, **kwargs)
    if choice is None or (found := _first_nonfinite(result)) is None:
        return result
    if choice == "raise":
        raise _nonfinite_error(name, *found)
    _warn_about_retry(name, found[1].dtype)
    return _retry_in_float32(model, name, call, args, kwargs, result)


def guarded_images(
    model: nn.Module, name: str, call: Call, images: Tensor, choice: str | None
) -> Tensor:
    """:func:`guarded` for a batch: only images whose results are not finite are computed again.

    Args:
        model: the owner of the parameters that ``call`` uses.
        name: of the call, for messages.
        call: maps a batch (B, ...) to a tensor (B, ...), image by image.
        images: the batch.
        choice: one of ``CHOICES``.

    Raises:
        NonFiniteError: as :func:`guarded`.
    """
    result = call(images)
    if choice is None or (found := _first_nonfinite(result)) is None:
        return result
    if choice == "raise":
        raise _nonfinite_error(name, *found)
    _warn_about_retry(name, result.dtype)
    finite = torch.isfinite(result.detach()).flatten(1).all(1)
    bad, good = (~finite).nonzero().flatten(), finite.nonzero().flatten()
    again = _retry_in_float32(model, name, call, (images[bad],), {}, result[bad])
    merged = result.detach().index_copy(0, bad, again)
    if result.requires_grad and len(good):
        # Backward through ``result`` would compute 0 * inf for the images that were replaced.
        merged = merged.index_copy(0, good, call(images[good]))
    return merged


def guard_outermost_call(forward: Call, choice: str) -> Call:
    """``forward``, with the policy ``choice`` applied to the outermost call of a thread.

    Args:
        forward: of a class of modules.
        choice: one of ``CHOICES``, not None.
    """

    @functools.wraps(forward)
    def outermost(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _inside_guarded_call.get() or _is_backward():
            return forward(self, *args, **kwargs)
        token = _inside_guarded_call.set(True)
        try:
            name = f"{type(self).__name__}.forward"
            return guarded(self, name, functools.partial(forward, self), args, kwargs, choice)
        finally:
            _inside_guarded_call.reset(token)

    return outermost


_inside_guarded_call: ContextVar[bool] = ContextVar("vaekernels_guarded_call", default=False)


def _is_backward() -> bool:
    """Whether a backward recomputes activations, of a result that was checked."""
    return torch._C._current_graph_task_id() != -1


def _nonfinite_error(name: str, place: str, tensor: Tensor) -> NonFiniteError:
    return NonFiniteError(
        f"{name}: {_describe(place, tensor)} is not finite; use a wider dtype (bfloat16 has "
        "float32's range), or on_nonfinite = 'retry_fp32'"
    )


def _retry_in_float32(
    model: nn.Module,
    name: str,
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> Any:
    """The call in float32, rounded to the dtypes of ``result``."""
    halves = {place: t for place, t in tensors_of(result) if t.dtype in _HALF}
    device = next(iter(halves.values())).device.type
    wide = _in_float32(model, call, args, kwargs, device)
    for place, tensor in tensors_of(wide):
        if place not in halves or not can_be_read(tensor):
            continue
        got = _describe(place, halves[place])
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


def _first_nonfinite(result: Any) -> tuple[str, Tensor] | None:
    """The first 16-bit tensor in ``result`` that is not finite, and its path."""
    for place, tensor in tensors_of(result):
        if tensor.dtype in _HALF and can_be_read(tensor) and not _is_finite(tensor):
            return place, tensor
    return None


def _describe(place: str, tensor: Tensor) -> str:
    return f"the result{place and f' {place!r}'} in {tensor.dtype}"


def can_be_read(tensor: Tensor) -> bool:
    """Whether values of ``tensor`` can be read: not while tracing or capturing a CUDA graph."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    # Imported here, because it takes half a second if torch has not imported it.
    from torch._subclasses.fake_tensor import FakeTensor

    if isinstance(tensor, FakeTensor):
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


class _Function(nn.Module):
    """A function as a module that has the parameters of ``model``."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


def _in_float32(
    model: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], device: str
) -> Any:
    """The call with 16-bit tensors cast to float32; gradients reach the parameters."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    wide = {f"model.{name}": t.float() for name, t in named if t.dtype in _HALF}
    args, kwargs = map_tensors((args, kwargs), _widened)
    with torch.autocast(device, enabled=False):
        return torch.func.functional_call(_Function(model, call), wide, args, kwargs)


def _widened(place: str, tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def warn_if_slow(owner: str, x: Tensor) -> None:
    """Warn, once, if computing with the 16-bit dtype of ``x`` is slow on this CPU.

    bfloat16 is fast on processors with instructions for it; float16 rarely is.
    """
    if torch.compiler.is_compiling() or x.dtype not in _HALF or x.device.type != "cpu":
        return
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if x.dtype == torch.float16 or not fast:
        _warn_about_slowness(owner, x.dtype)


@functools.cache
def _warn_about_slowness(owner: str, dtype: torch.dtype) -> None:
    """Warn once for each owner and dtype."""
    warnings.warn(
        f"{owner}: {dtype} on the CPU runs on PyTorch's own layers, which can take many times "
        "the time of float32 there: call model.float(), or move the model to a GPU",
        stacklevel=6,
    )


@functools.cache
def _warn_about_retry(name: str, dtype: torch.dtype) -> None:
    """Warn once for each name and dtype."""
    warnings.warn(
        f"{name}: a result in {dtype} was not finite and was computed again in float32, which "
        "takes several times the time and twice the memory",
        stacklevel=6,
    )
