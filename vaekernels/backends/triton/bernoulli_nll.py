"""Triton kernels of ``vk.bernoulli_nll``."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import tile_configs
from vaekernels.backends.triton.elementary import divide, exp, log1p_of_fraction
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
def bernoulli_nll_kernel(
    logits,  # operand (B, extent)
    target,  # operand (B, extent)
    partial,  # (B, segments): out, sums of the likelihood's negative logarithm
    logits_stride,
    target_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward.

    Equation: t log(1 + exp(-x)) + (1 - t) log(1 + exp(x)).
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64; log1p has full relative accuracy, so that a confident, right
        logit keeps its tiny loss.
    Saved for backward: the inputs.
    Paper: Kingma and Welling 2013, appendix C.1.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    x = load_operand(logits, logits_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    # With log(1 + exp(-|x|)) split off both terms, what is left of them never cancels.
    nll = x * tl.where(x > 0.0, 1.0 - t, -t) + log1p_of_fraction(exp(-tl.abs(x)))
    store_row_sum(partial, nll, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_stride", "batch", "segments"])
def bernoulli_nll_backward_kernel(
    grad,  # (B,)
    logits,  # operand (B, extent)
    target,  # operand (B, extent)
    grad_logits,  # like logits: out, or None
    grad_target,  # like target: out, or None
    grad_stride,
    logits_stride,
    target_stride,
    grad_logits_stride,
    grad_target_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward.

    Equation: d/dx = sigmoid(x) - t, d/dt = -x.
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward; the sigmoid by exp(-|x|), which cannot overflow.
    Saved for backward: recomputes from the inputs.
    Paper: Kingma and Welling 2013, appendix C.1.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    g = load_row(grad, grad_stride, row, batch, COMPUTE)
    x = load_operand(logits, logits_stride, row, column, mask, COMPUTE)
    t = load_operand(target, target_stride, row, column, mask, COMPUTE)
    e = exp(-tl.abs(x))
    sigmoid = divide(tl.where(x < 0.0, e, 1.0), 1.0 + e)
    store_gradient(
        grad_logits,
        grad_logits_stride,
        g * (sigmoid - t),
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )
    store_gradient(
        grad_target,
        grad_target_stride,
        -g * x,
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )


AOT_CONFIGS = [
    *tile_configs(bernoulli_nll_kernel),
    *tile_configs(bernoulli_nll_backward_kernel),
]


@implements("bernoulli_nll")
def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    return row_sums(bernoulli_nll_kernel, logits, target)


@implements("bernoulli_nll_backward")
def bernoulli_nll_backward(
    grad: Tensor | None, logits: Tensor, target: Tensor, mask: Sequence[bool]
) -> tuple[Tensor, ...]:
    return row_gradients(bernoulli_nll_backward_kernel, grad, (logits, target), mask)
