"""Triton kernels of ``vk.rsample_kl``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import tile_configs
from vaekernels.backends.triton.elementary import exp
from vaekernels.backends.triton.launch_grid import COMPUTE, compute_dtype
from vaekernels.backends.triton.noise import load_sample_ids, noise_arguments, standard_normals
from vaekernels.backends.triton.row_reduction import (
    Operand,
    RowOutput,
    Tiling,
    gradient_outputs,
    launch,
    load_operand,
    load_row,
    store_gradient,
    store_row_sum,
    tile_position,
    zero_gradients,
)


@triton.jit
def clamp(x, low, high, COMPUTE: tl.constexpr):
    """Clamped x, and where gradients flow: in [low, high], and at a NaN only without bounds."""
    low = tl.full([1, 1], low, COMPUTE)
    high = tl.full([1, 1], high, COMPUTE)
    unbounded = (low == float("-inf")) & (high == float("inf"))
    clamped = tl.where(x < low, low, tl.where(x > high, high, x))
    return clamped, unbounded | ((x >= low) & (x <= high))


@triton.jit(do_not_specialize=["seed", "step", "batch", "segments"])
def rsample_kl_kernel(
    mean,  # operand (B, extent)
    logvar,  # operand (B, extent)
    z,  # (B, extent): out, the sample
    partial,  # (B, segments): out, sums of the divergence
    seed,  # pointer to one int64, or its value
    step: tl.int64,
    sample_ids,  # (B,) int64, or None for the row's number
    logvar_min: tl.float64,
    logvar_max: tl.float64,
    mean_stride,
    logvar_stride,
    z_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward, in one pass.

    Equation: z = m + exp(l / 2) eps, KL = (m^2 + exp(l) - 1 - l) / 2 with l the clamped logvar.
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64; z is one fused multiply-add of exp(l / 2) by elementary.py
        and the float32 noise, so that its bits are those of the C++ backends.
    Saved for backward: the inputs; no noise.
    Paper: Kingma and Welling 2013, appendix B.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
    lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
    lv, _ = clamp(lv, logvar_min, logvar_max, COMPUTE)
    std = exp(0.5 * lv)
    ids = load_sample_ids(sample_ids, row, batch)
    first_block = (tl.program_id(0) % segments) * (COLUMNS // 4)
    eps = standard_normals(seed, step, ids, first_block, ROWS, COLUMNS).to(COMPUTE)
    tl.store(z + row * z_stride + column, tl.fma(std, eps, m), mask=mask)
    kl = 0.5 * (m * m + (std * std - 1.0 - lv))
    store_row_sum(partial, kl, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_kl_stride", "seed", "step", "batch", "segments"])
def rsample_kl_backward_kernel(
    grad_z,  # rows (B, extent), or None
    grad_kl,  # (B,), or None
    mean,  # operand (B, extent)
    logvar,  # operand (B, extent)
    grad_mean,  # like mean: out, or None
    grad_logvar,  # like logvar (one number: (B, segments)): out, or None
    seed,  # pointer to one int64, or its value
    step: tl.int64,
    sample_ids,  # (B,) int64, or None for the row's number
    logvar_min: tl.float64,
    logvar_max: tl.float64,
    grad_z_stride,
    grad_kl_stride,
    mean_stride,
    logvar_stride,
    grad_mean_stride,
    grad_logvar_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward; reads only what the given gradients need.

    Equation: d/dm = gz + gkl m, d/dl = (gz eps exp(l / 2) + gkl (exp(l) - 1)) / 2 where
        logvar was within its bounds, else 0.
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward; the order of operations is that of the C++ backends.
    Saved for backward: recomputes the noise from the seed, which costs less than reading it.
    Paper: Kingma and Welling 2013, appendix B.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    zero = tl.zeros([ROWS, COLUMNS], COMPUTE)
    slope_mean = zero
    eps = zero
    slope_logvar = zero
    if grad_z is not None:
        gz = load_operand(grad_z, grad_z_stride, row, column, mask, COMPUTE)
        slope_mean += gz
        if grad_logvar is not None:
            ids = load_sample_ids(sample_ids, row, batch)
            first_block = (tl.program_id(0) % segments) * (COLUMNS // 4)
            normals = standard_normals(seed, step, ids, first_block, ROWS, COLUMNS)
            eps = normals.to(COMPUTE)
    if grad_kl is not None:
        gkl = load_row(grad_kl, grad_kl_stride, row, batch, COMPUTE)
        m = load_operand(mean, mean_stride, row, column, mask, COMPUTE)
        slope_mean = tl.fma(gkl, m, slope_mean)
    if grad_logvar is not None:
        lv = load_operand(logvar, logvar_stride, row, column, mask, COMPUTE)
        lv, within = clamp(lv, logvar_min, logvar_max, COMPUTE)
        std = exp(0.5 * lv)
        if grad_z is not None:
            slope_logvar = gz * eps * std  # in this order 0 for a gz of 0 and every finite std
        if grad_kl is not None:
            slope_logvar += gkl * (std * std - 1.0)
        slope_logvar = tl.where(within, 0.5 * slope_logvar, 0.0)
    store_gradient(
        grad_mean,
        grad_mean_stride,
        slope_mean,
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )
    store_gradient(
        grad_logvar,
        grad_logvar_stride,
        slope_logvar,
        row,
        column,
        mask,
        batch,
        segments,
        ROWS,
        COLUMNS,
    )


AOT_CONFIGS = [
    *tile_configs(rsample_kl_kernel),
    *tile_configs(
        rsample_kl_kernel,
        variant="sample ids and seed in memory",
        sample_ids="*i64:16",
        seed="*i64",
    ),
    *tile_configs(rsample_kl_backward_kernel),
    *tile_configs(rsample_kl_backward_kernel, variant="z alone", grad_kl=None, grad_kl_stride=None),
    *tile_configs(rsample_kl_backward_kernel, variant="kl alone", grad_z=None, grad_z_stride=None),
]


@implements("rsample_kl")
def rsample_kl(
    mean: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: int,
    sample_ids: Tensor | None,
    logvar_min: float,
    logvar_max: float,
) -> tuple[Tensor, Tensor]:
    dtype, tiling, z = (
        compute_dtype(mean, logvar),
        Tiling.of(mean),
        RowOutput(torch.empty_like(mean)),
    )
    if mean.numel() == 0:
        return z.result, mean.new_zeros(tiling.batch, dtype=dtype)
    m, lv = Operand.of(mean, mean, dtype), Operand.of(logvar, mean, dtype)
    partial = tiling.partial(mean, dtype)
    launch(
        rsample_kl_kernel,
        tiling,
        mean,
        m.argument,
        lv.argument,
        z.argument,
        partial,
        *noise_arguments(mean, seed, step, sample_ids),
        logvar_min,
        logvar_max,
        m.stride,
        lv.stride,
        z.stride,
        COMPUTE=COMPUTE[dtype],
    )
    return z.finish(), tiling.merge(partial)


@implements("rsample_kl_backward")
def rsample_kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    mean: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: int,
    sample_ids: Tensor | None,
    logvar_min: float,
    logvar_max: float,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    inputs = (mean, logvar)
    if mean.numel() == 0 or not any(mask) or (grad_z is None and grad_kl is None):
        return zero_gradients(inputs, mask)
    dtype, tiling = compute_dtype(*inputs), Tiling.of(mean)
    m, lv = Operand.of(mean, mean, dtype), Operand.of(logvar, mean, dtype)
    gz = None if grad_z is None else Operand.of(grad_z, mean, dtype)
    outputs = gradient_outputs(inputs, mask, tiling, dtype)
    launch(
        rsample_kl_backward_kernel,
        tiling,
        mean,
        None if gz is None else gz.argument,
        grad_kl,
        m.argument,
        lv.argument,
        *(output.argument for output in outputs),
        *noise_arguments(mean, seed, step, sample_ids),
        logvar_min,
        logvar_max,
        None if gz is None else gz.stride,
        None if grad_kl is None else grad_kl.stride(0),
        m.stride,
        lv.stride,
        *(output.stride for output in outputs),
        COMPUTE=COMPUTE[dtype],
    )
    return tuple(output.finish() for output in outputs)
