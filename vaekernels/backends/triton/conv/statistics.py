"""Statistics of a convolution's result on their way to the next normalisation.

The product's epilogue leaves count, mean and M2 of each channel of each of its tiles, and so does
the pass behind the library (``epilogue.py``). They are merged into those of ``PARTS`` parts of an
image, whatever the tiles were, which is what is handed on; and the next normalisation merges the
parts of its groups. So it reads no image.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.definitions import STATISTICS_PARTS as PARTS
from vaekernels.backends.triton.aot import Config
from vaekernels.backends.triton.group_norm import AFFINE_BLOCK, store_affine
from vaekernels.backends.triton.launch_grid import cdiv, run

CHANNELS = 32  # of a program
TILES = 32  # that are merged side by side
SPAN = 8  # channels of a group likewise


@triton.jit
def add(parts, channels, held, origin, count, first, second):
    """Add parts whose counts lie at ``parts``: to the sums of 1, x - origin and its square."""
    n = tl.load(parts, mask=held, other=0.0).to(tl.float64)
    mean = tl.load(parts + channels, mask=held, other=0.0).to(tl.float64)
    m2 = tl.load(parts + 2 * channels, mask=held, other=0.0).to(tl.float64)
    distance = mean - origin
    moment = tl.where(held, n * distance, 0.0)
    second += tl.where(held, m2 + moment * distance, 0.0)
    return count + n, first + moment, second


@triton.jit(do_not_specialize=["tiles", "part_tiles"])
def merge_tiles_kernel(
    statistics,  # (N, tiles, 3, channels)
    parts,  # (N, PARTS, 3, channels): out
    tiles,
    part_tiles,  # of a part
    channels,
    PARTS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Statistics of tiles into those of parts.

    Equation: n = sum n_i, mean = sum n_i m_i / n, M2 = sum(M_i + n_i (m_i - mean)^2).
    Grid: one program per image, part and CHANNELS channels.
    Numerics: float64 about the mean of the part's first tile, in a fixed order; rounded once.
    Saved for backward: nothing; inference only.
    Paper: Chan, Golub and LeVeque 1983.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    part = tl.program_id(0) // blocks
    image = (part // PARTS).to(tl.int64)
    begin = (part % PARTS) * part_tiles
    end = tl.minimum(begin + part_tiles, tiles)
    pivot = (image * tiles + tl.minimum(begin, tiles - 1)) * 3 * channels + channels + channel
    origin = tl.load(statistics + pivot, mask=known, other=0.0).to(tl.float64)
    count = tl.zeros([TILES, CHANNELS], tl.float64)
    first = tl.zeros([TILES, CHANNELS], tl.float64)
    second = tl.zeros([TILES, CHANNELS], tl.float64)
    start = begin
    while start < end:
        tile = start + tl.arange(0, TILES)
        held = (tile < end)[:, None] & known[None, :]
        at = ((image * tiles + tile) * 3 * channels)[:, None] + channel[None, :]
        there, middle = statistics + at, origin[None, :]
        count, first, second = add(there, channels, held, middle, count, first, second)
        start += TILES
    n = tl.sum(count, 0)
    distance = tl.sum(first, 0) / tl.maximum(n, 1.0)
    out = parts + part.to(tl.int64) * 3 * channels + channel
    tl.store(out, n, mask=known)
    tl.store(out + channels, origin + distance, mask=known)
    tl.store(out + 2 * channels, tl.sum(second, 0) - n * distance * distance, mask=known)


@triton.jit(do_not_specialize=["groups", "width"])
def merge_parts_kernel(
    parts,  # (N, PARTS, 3, channels)
    weight,  # (channels,)
    bias,  # (channels,)
    scale,  # (N, channels): out
    shift,  # (N, channels): out
    eps: tl.float64,
    channels,
    groups,
    width,
    PARTS: tl.constexpr,
    SPAN: tl.constexpr,
    AFFINE_BLOCK: tl.constexpr,
):
    """Statistics of parts into the affine map that a normalisation is.

    Equation: as merge_tiles_kernel, over the parts of all channels of a group; then scale =
        weight / sqrt(M2 / n + eps), shift = bias - mean scale.
    Grid: one program per image and group.
    Numerics: float64 about the mean of the first part, in a fixed order; mean and rstd are rounded
        to float32, as group_norm.py's are.
    Saved for backward: nothing; inference only.
    Paper: Chan, Golub and LeVeque 1983; Wu and He 2018.
    """
    group = tl.program_id(0).to(tl.int64)
    image = group // groups
    begin = (group % groups) * width
    statistics = parts + image * PARTS * 3 * channels
    origin = tl.load(statistics + channels + begin).to(tl.float64)
    count = tl.zeros([PARTS, SPAN], tl.float64)
    first = tl.zeros([PARTS, SPAN], tl.float64)
    second = tl.zeros([PARTS, SPAN], tl.float64)
    start = 0
    while start < width:
        within = start + tl.arange(0, SPAN)
        held = (tl.arange(0, PARTS) >= 0)[:, None] & (within < width)[None, :]
        at = (tl.arange(0, PARTS) * 3 * channels)[:, None] + (begin + within)[None, :]
        there = statistics + at
        count, first, second = add(there, channels, held, origin, count, first, second)
        start += SPAN
    n = tl.sum(tl.sum(count, 1), 0)
    distance = tl.sum(tl.sum(first, 1), 0) / n
    variance = tl.sum(tl.sum(second, 1), 0) / n - distance * distance
    variance = tl.where(variance < 0.0, 0.0, variance)  # a NaN stays
    mean = (origin + distance).to(tl.float32)
    rstd = (1.0 / tl.sqrt(variance + eps)).to(tl.float32)
    store_affine(mean, rstd, weight, bias, scale, shift, group, groups, width, AFFINE_BLOCK)


def merge(statistics: Tensor) -> Tensor:
    """Of tiles, (N, tiles, 3, C), into those of parts, (N, PARTS, 3, C)."""
    batch, tiles, _, channels = statistics.shape
    parts = statistics.new_empty((batch, PARTS, 3, channels))
    run(
        merge_tiles_kernel,
        batch * PARTS * cdiv(channels, CHANNELS),
        statistics,
        *(statistics, parts, tiles, cdiv(tiles, PARTS), channels),
        PARTS=PARTS,
        TILES=TILES,
        CHANNELS=CHANNELS,
    )
    return parts


def affine_of(
    parts: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift, each (N, C), of the normalisation of an image with these parts."""
    batch, _, _, channels = parts.shape
    scale, shift = (parts.new_empty((batch, channels)) for _ in range(2))
    run(
        merge_parts_kernel,
        batch * groups,
        parts,
        *(parts, weight.contiguous(), bias.contiguous(), scale, shift, eps),
        *(channels, groups, channels // groups),
        PARTS=PARTS,
        SPAN=SPAN,
        AFFINE_BLOCK=AFFINE_BLOCK,
    )
    return scale, shift


def _config(kernel, dtype: str, **constants: int) -> Config:
    pointers = {"weight": f"*{dtype}:16", "bias": f"*{dtype}:16"}
    pointers |= dict.fromkeys(("statistics", "parts", "scale", "shift"), "*fp32:16")
    known = pointers | constants | {"eps": "fp64", "channels": "i32:16"}
    return Config(
        f"conv {kernel.__name__.removesuffix('_kernel')} {dtype}",
        kernel,
        {name: known.get(name, "i32") for name in kernel.arg_names},
    )


AOT_CONFIGS = [
    _config(merge_tiles_kernel, "bf16", PARTS=PARTS, TILES=TILES, CHANNELS=CHANNELS),
    _config(merge_parts_kernel, "bf16", PARTS=PARTS, SPAN=SPAN, AFFINE_BLOCK=AFFINE_BLOCK),
]
