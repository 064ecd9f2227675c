"""The convolutions by PyTorch's own: cuDNN on a GPU, oneDNN where tests run in the interpreter.

Prologue and epilogue are passes of ours (``finish.py``); upsampled images are written. Float32
comes here in the tier "medium" alone: its products are tf32, which is a setting of the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.triton.conv.forms import Form

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class _Geometry:
    """A form, as PyTorch has it.

    Attributes:
        stride: in both directions.
        padding: on every side.
        transposed: the form is a transposed convolution.
        enlarges: nearest-2x upsampling comes first.
        dropped: rows and columns in front of the result that the form does not have.
    """

    stride: int
    padding: int
    transposed: bool = False
    enlarges: bool = False
    dropped: int = 0

    @classmethod
    def of(cls, form: Form) -> _Geometry:
        if form.phases == 2:
            return cls(1, 1, enlarges=True) if form.kernel == 3 else cls(2, 1, transposed=True)
        padding = -form.windows[0].start
        # Padding below and to the right alone would copy the image: pad it on every side.
        one_sided = form.stride == 2 and padding == 0
        return cls(form.stride, 2, dropped=1) if one_sided else cls(form.stride, padding)

    @property
    def arguments(self) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
        return [self.stride] * 2, [self.padding] * 2, [1, 1], self.transposed, [0, 0], 1


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """The same bits in every run: no sums in the order of arrival, no search by the clock."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    """Float32 is multiplied as tf32, whatever is set.

    By the setting of convolutions: the older ``cudnn.allow_tf32`` is that of recurrent networks
    too, and reading it is an error where the two differ.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    if before == "tf32":
        # The default; written, it would no longer follow torch.backends.fp32_precision.
        yield
        return
    convolutions.fp32_precision = "tf32"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def forward(form: Form, x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The result of a form, ``size`` high and wide; channels_last, and nobody else's memory."""
    how = _Geometry.of(form)
    with _repeatable(), _tf32():
        # A bias here would be a pass of its own.
        y = _ATEN.convolution(_enlarged(x, how), weight, None, *how.arguments)
    y = y[:, :, how.dropped :, how.dropped :][:, :, : size[0], : size[1]]
    return y.contiguous(memory_format=torch.channels_last)


def gradients(
    form: Form, grad: Tensor, x: Tensor, weight: Tensor, wants: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and weight where they are wanted; that of weight lies as weight does."""
    how = _Geometry.of(form)
    if how.dropped:
        # The rows and columns that were dropped in front, and those behind the form's last.
        behind = [(x.shape[dim] + 1) // 2 - grad.shape[dim] for dim in (2, 3)]
        grad = F.pad(grad, (how.dropped, behind[1], how.dropped, behind[0]))
    grad = grad.contiguous(memory_format=torch.channels_last)
    with _repeatable(), _tf32():
        grad_x, grad_weight, _ = _ATEN.convolution_backward(
            *(grad, _enlarged(x, how), weight, None), *how.arguments, [*wants, False]
        )
    if wants[0] and how.enlarges:
        size = [2 * side for side in x.shape[2:]]
        grad_x = _ATEN.upsample_nearest2d_backward(grad_x, size, list(x.shape), 2.0, 2.0)
    return (
        grad_x.contiguous(memory_format=torch.channels_last) if wants[0] else None,
        torch.empty_like(weight).copy_(grad_weight) if wants[1] else None,
    )


def _enlarged(x: Tensor, how: _Geometry) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if how.enlarges else x
