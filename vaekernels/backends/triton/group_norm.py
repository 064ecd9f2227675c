"""Group normalisation's statistics, and the affine map per channel that they make.

Every kernel that normalises groups begins here: ``vk.group_norm_silu``, and the convolutions that
have a normalisation before them.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.aot import image_config, image_configs
from vaekernels.backends.triton.elementary import divide
from vaekernels.backends.triton.images import CHANNELS, Cut, Images, locate, offsets
from vaekernels.backends.triton.launch_grid import (
    COMPUTE,
    cdiv,
    compute_dtype,
    next_power_of_2,
    run,
)

MERGE_BLOCK = 1024  # parts of a group that are merged side by side
AFFINE_BLOCK = 32  # channels of a group likewise
_BLOCKS = {"BLOCK": MERGE_BLOCK, "AFFINE_BLOCK": AFFINE_BLOCK}


@triton.jit
def sum_groups(tile, GROUPS: tl.constexpr, SPAN: tl.constexpr):
    """(GROUPS * SPAN, POSITIONS) -> (GROUPS,)."""
    return tl.sum(tl.reshape(tl.sum(tile, 1), [GROUPS, SPAN]), 1)


@triton.jit(do_not_specialize=["groups", "blocks", "segments", "steps", "spans"])
def moments_kernel(
    x,  # (N, C, length) or (N, length, C)
    moments,  # (N, groups, spans * segments, 3): out
    channels,
    length,
    groups,
    blocks,
    segments,
    steps,
    spans,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    SPAN: tl.constexpr,
    POSITIONS: tl.constexpr,
    PIXELS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Statistics of parts of groups.

    Equation: of each part a pivot p, sum(x - p) and sum((x - p)^2).
    Grid: one program per sample, block of channels and segment of positions (images.py). A block is
        GROUPS groups of WIDTH channels, or one of the ``spans`` of a wider group.
    Numerics: float32 or float64. The pivot is the mean of the program's first tile, so that the
        squares are not those of a large mean; elements of the same place in all tiles are summed
        first, then the places.
    Saved for backward: nothing.
    Paper: Chan, Golub and LeVeque 1983.
    """
    sample, block, segment = locate(blocks, segments, PIXELS)
    span = block % spans
    row = tl.arange(0, GROUPS * SPAN)
    if SPAN == WIDTH:  # no gaps between groups
        channel = block * (GROUPS * SPAN) + row
        held = channel < channels
    else:
        within = span * SPAN + row % SPAN
        channel = (block // spans * GROUPS + row // SPAN) * WIDTH + within
        held = (channel < channels) & (within < WIDTH)
    channel, held = channel[:, None], held[:, None]
    start = segment.to(tl.int64) * (steps * POSITIONS)
    position = start + tl.arange(0, POSITIONS)[None, :]

    inside = held & (position < length)
    at = offsets(sample, channel, position, channels, length, PIXELS)
    values = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    count = tl.minimum(SPAN, WIDTH - span * SPAN) * tl.minimum(POSITIONS, length - start)
    sums = sum_groups(values, GROUPS, SPAN)
    pivot = divide(sums, tl.zeros_like(sums) + count.to(COMPUTE))
    center = tl.reshape(tl.broadcast_to(pivot[:, None], [GROUPS, SPAN]), [GROUPS * SPAN])[:, None]
    first = tl.where(inside, values - center, 0.0)
    second = first * first
    step = 1
    while step < steps:
        position = start + step * POSITIONS + tl.arange(0, POSITIONS)[None, :]
        inside = held & (position < length)
        at = offsets(sample, channel, position, channels, length, PIXELS)
        values = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
        deviation = tl.where(inside, values - center, 0.0)
        first += deviation
        second = tl.fma(deviation, deviation, second)
        step += 1

    group = block // spans * GROUPS + tl.arange(0, GROUPS)
    part = span * segments + segment
    out = moments + ((sample * groups + group) * (spans * segments) + part) * 3
    tl.store(out, pivot, mask=group < groups)
    tl.store(out + 1, sum_groups(first, GROUPS, SPAN), mask=group < groups)
    tl.store(out + 2, sum_groups(second, GROUPS, SPAN), mask=group < groups)


@triton.jit
def store_affine(mean, rstd, weight, bias, scale, shift, group, groups, width, BLOCK: tl.constexpr):
    """The channels' scale and shift: x * scale + shift is the normalised x * weight + bias."""
    start = 0
    while start < width:
        within = start + tl.arange(0, BLOCK)
        channel = (group % groups) * width + within
        held = within < width
        factor = tl.load(weight + channel, mask=held, other=0.0).to(mean.dtype) * rstd
        offset = tl.load(bias + channel, mask=held, other=0.0).to(mean.dtype)
        at = group * width + within
        tl.store(scale + at, factor, mask=held)
        tl.store(shift + at, tl.fma(factor, -mean, offset), mask=held)
        start += BLOCK


@triton.jit(
    do_not_specialize=[
        "channels", "groups", "width", "length", "segments", "segment_length", "spans"
    ]
)  # fmt: skip
def merge_moments_kernel(
    moments,  # (N, groups, spans * segments, 3): of moments_kernel
    mean,  # (N, groups): out
    rstd,  # (N, groups): out
    weight,  # (C,), or None
    bias,  # (C,), or None
    scale,  # (N, C): out, or None
    shift,  # (N, C): out, or None
    eps: tl.float64,
    channels,
    groups,
    width,
    length,
    segments,
    segment_length,
    spans,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
    AFFINE_BLOCK: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Second, small reduction: mean and rstd of groups; optionally the affine map of channels.

    Equation: with d = p_i - p_0 of part i with n_i elements, sum(x - p_0) = sum_i(f_i + n_i d) and
        sum((x - p_0)^2) = sum_i(s_i + d (2 f_i + n_i d)).
    Grid: one program per sample and group.
    Numerics: float64, in an order fixed by the sample's shape; one rounding at the end.
    Saved for backward: mean and rstd.
    Paper: Chan, Golub and LeVeque 1983.
    """
    group = tl.program_id(0).to(tl.int64)
    parts = spans * segments
    moments += group * parts * 3
    origin = tl.load(moments).to(tl.float64)
    first = tl.zeros([BLOCK], tl.float64)
    second = tl.zeros([BLOCK], tl.float64)
    start = 0
    while start < parts:
        part = start + tl.arange(0, BLOCK)
        held = part < parts
        across = tl.minimum(SPAN, width - part // segments * SPAN)
        along = tl.minimum(segment_length, length - (part % segments).to(tl.int64) * segment_length)
        count = across.to(tl.float64) * along.to(tl.float64)
        pivot = tl.load(moments + part * 3, mask=held, other=0.0).to(tl.float64)
        f = tl.load(moments + part * 3 + 1, mask=held, other=0.0).to(tl.float64)
        s = tl.load(moments + part * 3 + 2, mask=held, other=0.0).to(tl.float64)
        distance = pivot - origin
        first += tl.where(held, f + count * distance, 0.0)
        second += tl.where(held, s + distance * (2.0 * f + count * distance), 0.0)
        start += BLOCK
    total = width.to(tl.float64) * length
    distance = tl.sum(first, 0) / total
    variance = tl.sum(second, 0) / total - distance * distance
    variance = tl.where(variance < 0.0, 0.0, variance)  # a NaN stays
    m = (origin + distance).to(COMPUTE)
    r = (1.0 / tl.sqrt(variance + eps)).to(COMPUTE)
    tl.store(mean + group, m)
    tl.store(rstd + group, r)
    if scale is not None:
        width = channels // groups
        store_affine(m, r, weight, bias, scale, shift, group, groups, width, AFFINE_BLOCK)


@triton.jit(do_not_specialize=["groups", "width"])
def scale_shift_kernel(
    mean,  # (N, groups)
    rstd,  # (N, groups)
    weight,  # (C,)
    bias,  # (C,)
    scale,  # (N, C): out
    shift,  # (N, C): out
    groups,
    width,
    BLOCK: tl.constexpr,
):
    """Affine map of channels.

    Equation: scale = weight rstd, shift = bias - mean scale.
    Grid: one program per sample and group.
    Numerics: that of mean; the shift is one fused multiply-add of the scale as it is rounded.
    Saved for backward: nothing.
    Paper: Wu and He 2018.
    """
    group = tl.program_id(0).to(tl.int64)
    m, r = tl.load(mean + group), tl.load(rstd + group)
    store_affine(m, r, weight, bias, scale, shift, group, groups, width, BLOCK)


_WITHOUT_AFFINE = dict.fromkeys(("weight", "bias", "scale", "shift"))
AOT_CONFIGS = [
    *image_configs(moments_kernel),
    image_config(merge_moments_kernel, "bf16", "pixels", **_BLOCKS),
    image_config(merge_moments_kernel, "fp32", "planes", **_BLOCKS, **_WITHOUT_AFFINE),
    image_config(scale_shift_kernel, "bf16", "pixels", BLOCK=AFFINE_BLOCK),
]


class Normalisation(NamedTuple):
    """A normalisation's statistics (N, groups), and its affine map per channel (N, C)."""

    mean: Tensor
    rstd: Tensor
    scale: Tensor
    shift: Tensor


def statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of the groups of each sample.

    Args:
        x: (N, C, ...), not empty; read in place where it is contiguous or channels_last.
        groups: that the channels are split into.
        eps: added to the variance.

    Returns:
        Two tensors (N, groups), float32, or float64 for a float64 ``x``.
    """
    mean, rstd = _normalisation(x, None, None, groups, eps)
    return mean, rstd


def normalisation(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> Normalisation:
    """``statistics`` and ``scale_shift``, with one launch less."""
    return Normalisation(*_normalisation(x, weight, bias, groups, eps))


def _normalisation(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> tuple[Tensor, ...]:
    images, dtype = Images.of(x), compute_dtype(x)
    batch, channels, length = images.sizes
    width = channels // groups
    if not images.pixels:
        # The planes of a group lie one after another: one long plane.
        width, length = 1, width * length
    span = min(CHANNELS, next_power_of_2(width))
    spans = cdiv(width, span)
    cut = Cut.of(groups * spans * span, length, images.pixels, reduces=True)
    moments = x.new_empty((batch, groups, spans * cut.segments, 3), dtype=dtype)
    run(
        moments_kernel,
        batch * cut.programs,
        x,
        *(images.tensor, moments, groups * width, length, groups),
        *(cut.blocks, cut.segments, cut.steps, spans),
        WIDTH=width,
        GROUPS=cut.channels // span,
        SPAN=span,
        POSITIONS=cut.positions,
        PIXELS=images.pixels,
        COMPUTE=COMPUTE[dtype],
    )
    merged = tuple(moments.new_empty((batch, groups)) for _ in range(2))
    affine: tuple[Tensor, ...] = ()
    if weight is not None and bias is not None:
        affine = tuple(moments.new_empty((batch, channels)) for _ in range(2))
        weight, bias = weight.contiguous(), bias.contiguous()
    run(
        merge_moments_kernel,
        batch * groups,
        x,
        *(moments, *merged, weight, bias, *(affine or (None, None)), eps, channels, groups),
        *(width, length, cut.segments, cut.steps * cut.positions, spans),
        SPAN=span,
        **_BLOCKS,
        COMPUTE=COMPUTE[dtype],
    )
    return *merged, *affine


def scale_shift(mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What makes the normalised and scaled x of x: two tensors (N, C), x * scale + shift."""
    (batch, groups), (channels,) = mean.shape, weight.shape
    scale, shift = (mean.new_empty((batch, channels)) for _ in range(2))
    run(
        scale_shift_kernel,
        batch * groups,
        mean,
        *(mean, rstd, weight.contiguous(), bias.contiguous(), scale, shift),
        *(groups, channels // groups),
        BLOCK=AFFINE_BLOCK,
        warps=1,
    )
    return scale, shift
