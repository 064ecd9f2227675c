"""The convolutions by PyTorch's own: cuDNN on a GPU, oneDNN where tests run in the interpreter.

Prologue and epilogue are passes of ours (``epilogue.py``); upsampled images are written. Float32
comes here in the tier "medium" alone: its products are tf32.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.triton.conv.forms import Form

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


_setting = threading.Lock()


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """The same bits in every run, for an op that takes this from the settings of the process.

    By one thread at a time: two that overlapped would leave behind what the other had set.
    """
    cudnn = torch.backends.cudnn
    with _setting:
        before = cudnn.deterministic, cudnn.benchmark
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


def _convolve(
    x: Tensor,
    weight: Tensor,
    how: _Geometry,
    transposed: bool,
    output_padding: list[int] | None = None,
) -> Tensor:
    """The same bits in every run, float32 as tf32, whatever is set; no bias, a pass of its own."""
    return _ATEN._convolution(
        x,
        weight,
        None,
        *([how.stride] * 2, [how.padding] * 2, [1, 1], transposed, output_padding or [0, 0], 1),
        benchmark=False,  # no search by the clock
        deterministic=True,  # no sums in the order of arrival
        cudnn_enabled=torch.backends.cudnn.enabled,
        allow_tf32=True,
    )


def forward(form: Form, x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The result of a form, ``size`` high and wide; a fresh channels_last tensor."""
    how = _Geometry.of(form)
    y = _convolve(_enlarged(x, how), weight, how, how.transposed)
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
    return (
        _x_gradient(how, grad, x, weight) if wants[0] else None,
        _weight_gradient(how, grad, x, weight) if wants[1] else None,
    )


def _x_gradient(how: _Geometry, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The adjoint: what is transposed becomes a convolution, and the other way round."""
    size = [side * (2 if how.enlarges else 1) for side in x.shape[2:]]
    output_padding = None
    if not how.transposed:  # rows and columns that the windows of the result did not reach
        reached = [
            (side - 1) * how.stride - 2 * how.padding + kernel
            for side, kernel in zip(grad.shape[2:], weight.shape[2:], strict=True)
        ]
        output_padding = [side - known for side, known in zip(size, reached, strict=True)]
    grad_x = _convolve(grad, weight, how, not how.transposed, output_padding)
    if how.enlarges:
        grad_x = _ATEN.upsample_nearest2d_backward(grad_x, size, list(x.shape), 2.0, 2.0)
    return grad_x.contiguous(memory_format=torch.channels_last)


def _weight_gradient(how: _Geometry, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """PyTorch has no op for it that takes cuDNN's settings: float32 is tf32 where that is set."""
    arguments = ([how.stride] * 2, [how.padding] * 2, [1, 1], how.transposed, [0, 0], 1)
    with _repeatable():
        _, grad_weight, _ = _ATEN.convolution_backward(
            *(grad, _enlarged(x, how), weight, None), *arguments, [False, True, False]
        )
    return torch.empty_like(weight).copy_(grad_weight)


def _enlarged(x: Tensor, how: _Geometry) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if how.enlarges else x
