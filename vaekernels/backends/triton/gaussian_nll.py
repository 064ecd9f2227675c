"""Triton kernels of ``vk.gaussian_nll``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import tile_configs
from vaekernels.backends.triton.elementary import exp
from vaekernels.backends.triton.row_reduction import (
    load_operand,
    load_row,
    row_gradients,
    row_sums,
    store_gradient,
    store_row_sum,
    tile_position,
)

LOG_TWO_PI = tl.constexpr(math.log(2.0 * math.pi))


@triton.jit(do_not_specialize=["batch", "segments"])
def gaussian_nll_kernel(
    mean,  # operand (B, extent)
    target,  # operand (B, extent)
    logvar,  # operand (B, extent) or one number
    partial,  # (B, segments): out, sums of the likelihood's negative logarithm
    mean_stride,
    target_stride,
    logvar_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward.

    Equation: (log(2 pi) + l + (t - m)^2 exp(-l)) / 2.
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64; exp by elementary.py. A variance that is one number costs no
        memory traffic, and its exponential is taken once per thread.
    Saved for backward: the inputs.
    Paper: Rybkin, Daniilidis and Levine 2021 (the variance as one number).
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
    distance = t - m
    value = 0.5 * (LOG_TWO_PI + lv + distance * distance * exp(-lv))
    store_row_sum(partial, value, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_stride", "batch", "segments"])
def gaussian_nll_backward_kernel(
    grad,  # (B,)
    mean,  # operand (B, extent)
    target,  # operand (B, extent)
    logvar,  # operand (B, extent) or one number
    grad_mean,  # like mean (one number: (B, segments)): out, or None
    grad_target,  # like target (one number: (B, segments)): out, or None
    grad_logvar,  # like logvar (one number: (B, segments)): out, or None
    grad_stride,
    mean_stride,
    target_stride,
    logvar_stride,
    grad_mean_stride,
    grad_target_stride,
    grad_logvar_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward.

    Equation: d/dm = (m - t) exp(-l) = -d/dt, d/dl = (1 - (t - m)^2 exp(-l)) / 2.
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward. The gradient of a single number is summed per row and segment here,
        then over all of them in float64 in a fixed order.
    Saved for backward: recomputes from the inputs.
    Paper: Rybkin, Daniilidis and Levine 2021 (the variance as one number).
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    g = load_row(grad, grad_stride, row, batch, COMPUTE)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
    distance = m - t
    scaled = distance * exp(-lv)
    slope = g * scaled
    store_gradient(
        grad_mean, grad_mean_stride, slope, row, column, mask, batch, segments, ROWS, COLUMNS
    )
    store_gradient(
        grad_target, grad_target_stride, -slope, row, column, mask, batch, segments, ROWS, COLUMNS
    )
    store_gradient(
        grad_logvar,
        grad_logvar_stride,
        0.5 * g * (1.0 - distance * scaled),
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )


_FIXED = {"logvar": "fp32", "logvar_stride": None}
_LEARNED = {"logvar": "*fp32", "logvar_stride": None}
AOT_CONFIGS = [
    *tile_configs(gaussian_nll_kernel),
    *tile_configs(gaussian_nll_kernel, "fixed logvar", **_FIXED),
    *tile_configs(gaussian_nll_kernel, "learned number", **_LEARNED),
    *tile_configs(gaussian_nll_backward_kernel),
    *tile_configs(
        gaussian_nll_backward_kernel,
        "fixed logvar",
        **_FIXED,
        grad_target=None,
        grad_target_stride=None,
        grad_logvar=None,
        grad_logvar_stride=None,
    ),
    *tile_configs(
        gaussian_nll_backward_kernel,
        "learned number",
        **_LEARNED,
        grad_logvar="*fp32:16",
        grad_logvar_stride=None,
    ),
]


@implements("gaussian_nll")
def gaussian_nll(mean: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    return row_sums(gaussian_nll_kernel, mean, target, logvar)


@implements("gaussian_nll_backward")
def gaussian_nll_backward(
    grad: Tensor | None, mean: Tensor, target: Tensor, logvar: Tensor, mask: Sequence[bool]
) -> tuple[Tensor, ...]:
    inputs = (mean, target, logvar)
    return row_gradients(gaussian_nll_backward_kernel, grad, inputs, mask)
