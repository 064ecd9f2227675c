"""Triton kernels of ``vk.gaussian_kl``."""

from __future__ import annotations

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


@triton.jit(do_not_specialize=["batch", "segments"])
def gaussian_kl_kernel(
    mean,  # operand (B, extent)
    logvar,  # operand (B, extent)
    prior_mean,  # operand (B, extent) or one number
    prior_logvar,  # operand (B, extent) or one number
    partial,  # (B, segments): out, sums of the divergence
    mean_stride,
    logvar_stride,
    prior_mean_stride,
    prior_logvar_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward.

    Equation: (exp(r) - 1 - r + (m - mp)^2 exp(-lp)) / 2 with r = l - lp.
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64; exp by elementary.py. A prior that is one number costs no memory
        traffic, and its exponential is taken once per thread.
    Saved for backward: the inputs.
    Paper: Kingma and Welling 2013, appendix B.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
    mp = load_operand(prior_mean, prior_mean_stride, row, column, mask, COMPUTE)
    lp = load_operand(prior_logvar, prior_logvar_stride, row, column, mask, COMPUTE)
    ratio = lv - lp
    distance = m - mp
    value = 0.5 * (exp(ratio) - 1.0 - ratio + distance * distance * exp(-lp))
    store_row_sum(partial, value, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_stride", "batch", "segments"])
def gaussian_kl_backward_kernel(
    grad,  # (B,)
    mean,  # operand (B, extent)
    logvar,  # operand (B, extent)
    prior_mean,  # operand (B, extent) or one number
    prior_logvar,  # operand (B, extent) or one number
    grad_mean,  # like mean (one number: (B, segments)): out, or None
    grad_logvar,  # like logvar (one number: (B, segments)): out, or None
    grad_prior_mean,  # like prior_mean (one number: (B, segments)): out, or None
    grad_prior_logvar,  # like prior_logvar (one number: (B, segments)): out, or None
    grad_stride,
    mean_stride,
    logvar_stride,
    prior_mean_stride,
    prior_logvar_stride,
    grad_mean_stride,
    grad_logvar_stride,
    grad_prior_mean_stride,
    grad_prior_logvar_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward.

    Equation: with r = l - lp and q = exp(-lp): d/dm = (m - mp) q = -d/dmp, d/dl = (exp(r) - 1) / 2,
        d/dlp = (1 - exp(r) - (m - mp)^2 q) / 2.
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward. The gradient of a single number is summed per row and segment here,
        then over all of them in float64 in a fixed order.
    Saved for backward: recomputes from the inputs.
    Paper: Kingma and Welling 2013, appendix B.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    g = load_row(grad, grad_stride, row, batch, COMPUTE)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
    mp = load_operand(prior_mean, prior_mean_stride, row, column, mask, COMPUTE)
    lp = load_operand(prior_logvar, prior_logvar_stride, row, column, mask, COMPUTE)
    growth = exp(lv - lp) - 1.0
    precision = exp(-lp)
    distance = m - mp
    slope = g * distance * precision
    store_gradient(
        grad_mean, grad_mean_stride, slope, row, column, mask, batch, segments, ROWS, COLUMNS
    )
    store_gradient(
        grad_logvar,
        grad_logvar_stride,
        0.5 * g * growth,
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )
    store_gradient(
        grad_prior_mean,
        grad_prior_mean_stride,
        -slope,
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )
    store_gradient(
        grad_prior_logvar,
        grad_prior_logvar_stride,
        -0.5 * (g * growth + slope * distance),
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )


_STANDARD_PRIOR = {
    "prior_mean": "fp32",
    "prior_mean_stride": None,
    "prior_logvar": "fp32",
    "prior_logvar_stride": None,
}
_NO_PRIOR_GRADIENT = {
    "grad_prior_mean": None,
    "grad_prior_mean_stride": None,
    "grad_prior_logvar": None,
    "grad_prior_logvar_stride": None,
}
AOT_CONFIGS = [
    *tile_configs(gaussian_kl_kernel),
    *tile_configs(gaussian_kl_kernel, "standard prior", **_STANDARD_PRIOR),
    *tile_configs(gaussian_kl_backward_kernel),
    *tile_configs(
        gaussian_kl_backward_kernel, "standard prior", **_STANDARD_PRIOR, **_NO_PRIOR_GRADIENT
    ),
]


@implements("gaussian_kl")
def gaussian_kl(mean: Tensor, logvar: Tensor, prior_mean: Tensor, prior_logvar: Tensor) -> Tensor:
    return row_sums(gaussian_kl_kernel, mean, logvar, prior_mean, prior_logvar)


@implements("gaussian_kl_backward")
def gaussian_kl_backward(
    grad: Tensor | None,
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor,
    prior_logvar: Tensor,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    inputs = (mean, logvar, prior_mean, prior_logvar)
    return row_gradients(gaussian_kl_backward_kernel, grad, inputs, mask)
