"""Triton kernel of ``vk.randn``."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import tile_configs
from vaekernels.backends.triton.noise import load_sample_ids, noise_arguments, standard_normals
from vaekernels.backends.triton.row_reduction import RowOutput, Tiling, launch, tile_position


@triton.jit(do_not_specialize=["seed", "step", "batch", "segments"])
def randn_kernel(
    eps,  # (B, extent): out, standard normals
    seed,  # pointer to one int64, or its value
    step: tl.int64,
    sample_ids,  # (B,) int64, or None for the row's number
    eps_stride,
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The noise stream.

    Equation: eps_bi = BoxMuller(Philox(seed; i / 4, id_b, step))_(i mod 4).
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 (noise.py), rounded once to the output's dtype.
    Saved for backward: nothing; not differentiable.
    Paper: Salmon et al. 2011.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    ids = load_sample_ids(sample_ids, row, batch)
    first_block = (tl.program_id(0) % segments) * (COLUMNS // 4)
    normals = standard_normals(seed, step, ids, first_block, ROWS, COLUMNS)
    tl.store(eps + row * eps_stride + column, normals, mask=mask)


AOT_CONFIGS = [*tile_configs(randn_kernel)]


@implements("randn")
def randn(like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None) -> Tensor:
    eps, tiling = RowOutput(like.new_empty(like.shape)), Tiling.of(like)
    if like.numel() > 0:
        key = noise_arguments(like, seed, step, sample_ids)
        launch(randn_kernel, tiling, like, eps.argument, *key, eps.stride)
    return eps.finish()
