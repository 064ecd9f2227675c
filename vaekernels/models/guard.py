"""What is done about results that are not finite: 16 bits hold fewer numbers than models make."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaekernels.nonfinite import NonFiniteError

CHOICES = (None, "raise", "retry_fp32")
_HALF = (torch.float16, torch.bfloat16)

Call = Callable[[Tensor], Tensor]


def guarded(model: nn.Module, method: str, call: Call, x: Tensor, choice: str | None) -> Tensor:
    """``call(x)``; where its 16-bit result is not finite, what ``choice`` says.

    The result is looked at once, at the end, which waits for a GPU; with None, and while
    ``torch.compile`` traces or a CUDA graph is captured, not at all.

    Args:
        model: with the parameters that ``call`` uses.
        method: of the model, named in what is said.
        call: computes the result.
        x: its argument.
        choice: one of ``CHOICES``.

    Raises:
        NonFiniteError: the result is not finite, and trying again is not allowed or in vain.
    """
    y = call(x)
    if choice is None or y.dtype not in _HALF or not _can_be_read(y) or _is_finite(y):
        return y
    name = f"{type(model).__name__}.{method}"
    if choice == "raise":
        raise NonFiniteError(
            f"{name}: the result in {y.dtype} is not finite; use a wider dtype (bfloat16 has "
            "float32's range), or on_nonfinite = 'retry_fp32'"
        )
    _warn_about_retry(name, y.dtype)
    y = _in_float32(model, call, x).to(y.dtype)
    if not _is_finite(y):
        raise NonFiniteError(
            f"{name}: the result in {y.dtype} is not finite, and neither is that of float32: "
            "look at the input and the weights (vk.detect_nonfinite finds the first op)"
        )
    return y


def _can_be_read(y: Tensor) -> bool:
    if y.is_meta or torch.compiler.is_compiling():
        return False
    return not (y.is_cuda and torch.cuda.is_current_stream_capturing())


def _is_finite(y: Tensor) -> bool:
    return bool(torch.isfinite(y.detach()).all())


class _Function(nn.Module):
    """A function with the parameters of a model, as a module."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _in_float32(model: nn.Module, call: Call, x: Tensor) -> Tensor:
    """``call(x)`` with copies of the parameters in float32; gradients reach the parameters."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    wide = {f"model.{name}": t.float() for name, t in named if t.is_floating_point()}
    with torch.autocast(x.device.type, enabled=False):
        return torch.func.functional_call(_Function(model, call), wide, (x.float(),))


@functools.cache
def _warn_about_retry(name: str, dtype: torch.dtype) -> None:
    """Once for each method and dtype."""
    warnings.warn(
        f"{name}: a result in {dtype} was not finite and was computed again in float32, which "
        "takes several times the time and twice the memory",
        stacklevel=6,
    )
