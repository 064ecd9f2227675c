"""Triton kernels of ``vk.laplace_nll``."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import tile_configs
from vaekernels.backends.triton.elementary import divide, log
from vaekernels.backends.triton.row_reduction import (
    load_operand,
    load_row,
    row_gradients,
    row_sums,
    store_gradient,
    store_row_sum,
    tile_position,
)


@triton.jit(do_not_specialize=["batch", "segments"])
def laplace_nll_kernel(
    mean,  # operand (B, extent)
    target,  # operand (B, extent)
    scale,  # operand (B, extent) or one number
    partial,  # (B, segments): out, sums of the likelihood's negative logarithm
    mean_stride,
    target_stride,
    scale_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward.

    Equation: log(2 s) + |t - m| / s.
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64; log by elementary.py, division correctly rounded. A scale that is
        one number costs no memory traffic, and its logarithm is taken once per thread.
    Saved for backward: the inputs.
    Paper: Isola et al. 2017.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    s = load_operand(scale, scale_stride, row, column, mask, COMPUTE)
    value = log(2.0 * s) + divide(tl.abs(t - m), s)
    store_row_sum(partial, value, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_stride", "batch", "segments"])
def laplace_nll_backward_kernel(
    grad,  # (B,)
    mean,  # operand (B, extent)
    target,  # operand (B, extent)
    scale,  # operand (B, extent) or one number
    grad_mean,  # like mean (one number: (B, segments)): out, or None
    grad_target,  # like target (one number: (B, segments)): out, or None
    grad_scale,  # like scale (one number: (B, segments)): out, or None
    grad_stride,
    mean_stride,
    target_stride,
    scale_stride,
    grad_mean_stride,
    grad_target_stride,
    grad_scale_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward.

    Equation: d/dm = -sign(t - m) / s = -d/dt, d/ds = 1 / s - |t - m| / s^2, with sign(0) = 0.
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward. The gradient of a single number is summed per row and segment here,
        then over all of them in float64 in a fixed order.
    Saved for backward: recomputes from the inputs.
    Paper: Isola et al. 2017.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    g = load_row(grad, grad_stride, row, batch, COMPUTE)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    s = load_operand(scale, scale_stride, row, column, mask, COMPUTE)
    distance = t - m
    sign = tl.where(distance > 0.0, 1.0, tl.where(distance < 0.0, -1.0, 0.0))
    rate = divide(g, s)
    slope = rate * sign
    store_gradient(
        grad_mean, grad_mean_stride, -slope, row, column, mask, batch, segments, ROWS, COLUMNS
    )
    store_gradient(
        grad_target, grad_target_stride, slope, row, column, mask, batch, segments, ROWS, COLUMNS
    )
    store_gradient(
        grad_scale,
        grad_scale_stride,
        rate - g * divide(divide(tl.abs(distance), s), s),
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )


_FIXED = {"scale": "fp32", "scale_stride": None}
_LEARNED = {"scale": "*fp32", "scale_stride": None}
AOT_CONFIGS = [
    *tile_configs(laplace_nll_kernel),
    *tile_configs(laplace_nll_kernel, "fixed scale", **_FIXED),
    *tile_configs(laplace_nll_backward_kernel),
    *tile_configs(
        laplace_nll_backward_kernel,
        "learned number",
        **_LEARNED,
        grad_scale="*fp32:16",
        grad_scale_stride=None,
    ),
]


@implements("laplace_nll")
def laplace_nll(mean: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    return row_sums(laplace_nll_kernel, mean, target, scale)


@implements("laplace_nll_backward")
def laplace_nll_backward(
    grad: Tensor | None, mean: Tensor, target: Tensor, scale: Tensor, mask: Sequence[bool]
) -> tuple[Tensor, ...]:
    inputs = (mean, target, scale)
    return row_gradients(laplace_nll_backward_kernel, grad, inputs, mask)
