"""Triton kernels of ``vk.group_norm_silu``; its statistics are group_norm.py's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import group_norm, implements
from vaekernels.backends.triton.aot import image_config, image_configs
from vaekernels.backends.triton.group_norm import normalisation, scale_shift
from vaekernels.backends.triton.images import (
    Cut,
    Images,
    is_channels_last,
    is_dense,
    locate,
    offsets,
)
from vaekernels.backends.triton.launch_grid import COMPUTE, compute_dtype, run, written_dtype
from vaekernels.backends.triton.row_reduction import zero_gradients
from vaekernels.backends.triton.silu import silu, silu_derivative

SPAN = 16  # channels of a group whose sums are merged side by side
MERGE_BLOCK = 64  # segments of a channel likewise
_BLOCKS = {"SPAN": SPAN, "BLOCK": MERGE_BLOCK}


@triton.jit
def load_channel(vector, sample, channel, channels):
    """One number per channel of the sample, (CHANNELS, 1)."""
    return tl.load(vector + sample * channels + channel, mask=channel < channels, other=0.0)


@triton.jit(do_not_specialize=["blocks", "segments"])
def group_norm_silu_kernel(
    x,  # (N, C, length) or (N, length, C)
    scale,  # (N, C)
    shift,  # (N, C)
    y,  # like x: out
    channels,
    length,
    blocks,
    segments,
    SILU: tl.constexpr,
    ROUNDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PIXELS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward, after the statistics.

    Equation: y = silu(u) with u = x scale + shift, the normalised x times weight plus bias.
    Grid: one program per tile (images.py).
    Numerics: float32 or float64, rounded once; SiLU by silu.py.
    Saved for backward: x, mean and rstd.
    Paper: Wu and He 2018.
    """
    sample, block, segment = locate(blocks, segments, PIXELS)
    channel = block * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    position = segment.to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)[None, :]
    inside = (channel < channels) & (position < length)
    at = offsets(sample, channel, position, channels, length, PIXELS)
    values = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    factor = load_channel(scale, sample, channel, channels)
    result = tl.fma(values, factor, load_channel(shift, sample, channel, channels))
    if SILU:
        result = silu(result, ROUNDED)
    tl.store(y + at, result, mask=inside)


@triton.jit(do_not_specialize=["blocks", "segments", "steps"])
def group_norm_silu_sums_kernel(
    grad,  # (N, C, length) or (N, length, C)
    x,  # like grad
    scale,  # (N, C)
    shift,  # (N, C)
    center,  # (N, C), mean
    sums,  # (N, C, segments, 2): out
    channels,
    length,
    blocks,
    segments,
    steps,
    SILU: tl.constexpr,
    ROUNDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PIXELS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward, first pass: what the other elements' gradients add to each.

    Equation: with g = grad silu'(u): of each channel and segment sum(g) and sum(g (x - center)).
    Grid: one program per sample, block of channels and segment of positions (images.py).
    Numerics: float32 or float64; elements of the same place in all tiles are summed first, then
        the places.
    Saved for backward: recomputes u.
    Paper: Wu and He 2018.
    """
    sample, block, segment = locate(blocks, segments, PIXELS)
    channel = block * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    held = channel < channels
    factor = load_channel(scale, sample, channel, channels)
    offset = load_channel(shift, sample, channel, channels)
    middle = load_channel(center, sample, channel, channels)
    plain = tl.zeros([CHANNELS, POSITIONS], COMPUTE)
    with_x = tl.zeros([CHANNELS, POSITIONS], COMPUTE)
    step = 0
    while step < steps:
        tile = segment.to(tl.int64) * steps + step
        position = tile * POSITIONS + tl.arange(0, POSITIONS)[None, :]
        inside = held & (position < length)
        at = offsets(sample, channel, position, channels, length, PIXELS)
        g = tl.load(grad + at, mask=inside, other=0.0).to(COMPUTE)
        values = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
        if SILU:
            g *= silu_derivative(tl.fma(values, factor, offset), ROUNDED)
        plain += g
        with_x = tl.fma(g, values - middle, with_x)
        step += 1
    out = sums + ((sample * channels + channel) * segments + segment) * 2
    tl.store(out, tl.sum(plain, 1, keep_dims=True), mask=held)
    tl.store(out + 1, tl.sum(with_x, 1, keep_dims=True), mask=held)


@triton.jit(do_not_specialize=["groups", "width", "length", "segments"])
def group_norm_silu_merge_kernel(
    sums,  # (N, C, segments, 2): of group_norm_silu_sums_kernel
    weight,  # (C,)
    mean,  # (N, groups)
    rstd,  # (N, groups)
    total,  # (N, C) float64: out, sum of g
    total_with_x,  # (N, C) float64: out, sum of g (x - mean) rstd
    slope,  # (N, C): out
    constant,  # (N, C): out
    groups,
    width,
    length,
    segments,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Backward, between the passes: sums of channels, and what they add to grad_x.

    Equation: with s_c, t_c the totals of channel c and n elements in the group: slope =
        -rstd^2 sum_c(w_c t_c) / n, constant = -rstd sum_c(w_c s_c) / n - mean slope.
    Grid: one program per sample and group.
    Numerics: float64, in an order fixed by the sample's shape; one rounding at the end.
    Saved for backward: nothing.
    Paper: Wu and He 2018.
    """
    group = tl.program_id(0).to(tl.int64)
    r = tl.load(rstd + group).to(tl.float64)
    plain = tl.zeros([SPAN, 1], tl.float64)
    with_x = tl.zeros([SPAN, 1], tl.float64)
    start = 0
    while start < width:
        within = start + tl.arange(0, SPAN)[:, None]
        held = within < width
        channel = group * width + within
        s = tl.zeros([SPAN, BLOCK], tl.float64)
        t = tl.zeros([SPAN, BLOCK], tl.float64)
        first = 0
        while first < segments:
            segment = first + tl.arange(0, BLOCK)[None, :]
            inside = held & (segment < segments)
            at = sums + (channel * segments + segment) * 2
            s += tl.load(at, mask=inside, other=0.0)
            t += tl.load(at + 1, mask=inside, other=0.0)
            first += BLOCK
        of_channel = tl.sum(s, 1, keep_dims=True)
        of_channel_with_x = tl.sum(t, 1, keep_dims=True) * r
        tl.store(total + channel, of_channel, mask=held)
        tl.store(total_with_x + channel, of_channel_with_x, mask=held)
        w = tl.load(weight + group % groups * width + within, mask=held, other=0.0).to(tl.float64)
        plain += w * of_channel
        with_x += w * of_channel_with_x
        start += SPAN
    count = width.to(tl.float64) * length
    m = tl.load(mean + group).to(tl.float64)
    a = -r * r * tl.sum(tl.sum(with_x, 1), 0) / count
    b = -r * tl.sum(tl.sum(plain, 1), 0) / count - m * a
    start = 0
    while start < width:
        within = start + tl.arange(0, SPAN)
        tl.store(slope + group * width + within, a, mask=within < width)
        tl.store(constant + group * width + within, b, mask=within < width)
        start += SPAN


@triton.jit(do_not_specialize=["blocks", "segments"])
def group_norm_silu_backward_kernel(
    grad,  # (N, C, length) or (N, length, C)
    x,  # like grad
    scale,  # (N, C)
    shift,  # (N, C)
    slope,  # (N, C)
    constant,  # (N, C)
    grad_x,  # like grad: out
    channels,
    length,
    blocks,
    segments,
    SILU: tl.constexpr,
    ROUNDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    POSITIONS: tl.constexpr,
    PIXELS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward, second pass.

    Equation: dx = scale g + slope x + constant with g = grad silu'(u).
    Grid: one program per tile (images.py).
    Numerics: as forward.
    Saved for backward: recomputes g, which costs less than writing and reading it.
    Paper: Wu and He 2018.
    """
    sample, block, segment = locate(blocks, segments, PIXELS)
    channel = block * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    position = segment.to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)[None, :]
    inside = (channel < channels) & (position < length)
    at = offsets(sample, channel, position, channels, length, PIXELS)
    g = tl.load(grad + at, mask=inside, other=0.0).to(COMPUTE)
    values = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    factor = load_channel(scale, sample, channel, channels)
    if SILU:
        u = tl.fma(values, factor, load_channel(shift, sample, channel, channels))
        g *= silu_derivative(u, ROUNDED)
    rest = tl.fma(
        values,
        load_channel(slope, sample, channel, channels),
        load_channel(constant, sample, channel, channels),
    )
    tl.store(grad_x + at, tl.fma(g, factor, rest), mask=inside)


AOT_CONFIGS = [
    *group_norm.AOT_CONFIGS,
    *image_configs(group_norm_silu_kernel),
    *image_configs(group_norm_silu_sums_kernel),
    image_config(group_norm_silu_merge_kernel, "bf16", "pixels", **_BLOCKS),
    *image_configs(group_norm_silu_backward_kernel),
]


@implements("group_norm_silu")
def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, activation: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, dtype=written_dtype(x.dtype))
    if x.numel() == 0:  # what PyTorch makes of it
        mean = x.new_zeros((x.shape[0], groups), dtype=compute_dtype(x))
        return y.to(x.dtype), mean, torch.full_like(mean, float("nan"))
    if not is_dense(y):  # its dims are in another order
        result, mean, rstd = group_norm_silu(x.contiguous(), weight, bias, groups, eps, activation)
        return torch.empty_like(x).copy_(result), mean, rstd
    images = Images.of(x, is_channels_last(y))
    norm = normalisation(images.tensor, weight, bias, groups, eps)
    _map(group_norm_silu_kernel, images, activation, images.tensor, norm.scale, norm.shift, y)
    return y.to(x.dtype), norm.mean, norm.rstd


@implements("group_norm_silu_backward")
def group_norm_silu_backward(
    grad: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    activation: str | None,
    mean: Tensor,
    rstd: Tensor,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    if grad is None or x.numel() == 0 or not any(mask):
        return zero_gradients((x, weight, bias), mask)
    grad_x = torch.empty_like(x, dtype=written_dtype(x.dtype))
    if not is_dense(grad_x):  # its dims are in another order
        inputs = (x.contiguous(), weight, bias, groups, eps, activation, mean, rstd, mask)
        result, *others = group_norm_silu_backward(grad, *inputs)
        return (torch.empty_like(x).copy_(result) if mask[0] else result), *others
    images = Images.of(x, is_channels_last(grad_x))
    upstream = Images.of(grad, images.pixels).tensor
    scale, shift = scale_shift(mean, rstd, weight, bias)
    batch, channels, length = images.sizes
    center = mean.repeat_interleave(channels // groups, 1)
    cut = Cut.of(channels, length, images.pixels, reduces=True)
    sums = mean.new_empty((batch, channels, cut.segments, 2))
    run(
        group_norm_silu_sums_kernel,
        batch * cut.programs,
        x,
        *(upstream, images.tensor, scale, shift, center, sums),
        *(channels, length, cut.blocks, cut.segments, cut.steps),
        **_constants(images, cut, activation),
    )
    total, total_with_x = (torch.empty_like(scale, dtype=torch.float64) for _ in range(2))
    slope, constant = (torch.empty_like(scale) for _ in range(2))
    run(
        group_norm_silu_merge_kernel,
        batch * groups,
        x,
        *(sums, weight.contiguous(), mean, rstd, total, total_with_x, slope, constant),
        *(groups, channels // groups, length, cut.segments),
        **_BLOCKS,
    )
    grads = [x.new_empty(0) for _ in mask]
    if mask[0]:
        operands = (upstream, images.tensor, scale, shift, slope, constant, grad_x)
        _map(group_norm_silu_backward_kernel, images, activation, *operands)
        grads[0] = grad_x.to(x.dtype)
    if mask[1]:
        grads[1] = total_with_x.sum(0).to(weight.dtype)
    if mask[2]:
        grads[2] = total.sum(0).to(bias.dtype)
    return tuple(grads)


def affine_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``silu(x * scale + shift)``, channels_last; a number for each sample and channel, (N, C)."""
    images = Images.of(x, pixels=True)
    y = torch.empty_like(images.tensor, dtype=written_dtype(x.dtype))
    _map(group_norm_silu_kernel, images, "silu", images.tensor, scale, shift, y)
    return y.to(x.dtype)


def _map(kernel: Any, images: Images, activation: str | None, *tensors: Tensor) -> None:
    """Run a kernel that computes each element on its own."""
    batch, channels, length = images.sizes
    cut = Cut.of(channels, length, images.pixels, reduces=False)
    run(
        kernel,
        batch * cut.programs,
        images.tensor,
        *tensors,
        *(channels, length, cut.blocks, cut.segments),
        **_constants(images, cut, activation),
    )


def _constants(images: Images, cut: Cut, activation: str | None) -> dict[str, Any]:
    return {
        "SILU": activation == "silu",
        "ROUNDED": images.tensor.element_size() == 2,
        "CHANNELS": cut.channels,
        "POSITIONS": cut.positions,
        "PIXELS": images.pixels,
        "COMPUTE": COMPUTE[compute_dtype(images.tensor)],
    }
