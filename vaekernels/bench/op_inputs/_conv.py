"""Shapes and values of the convolutions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ConvShape(NamedTuple):
    """Of a convolution: what goes in, and how many channels come out."""

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int


def square(batch: int, in_channels: int, out_channels: int, pixels: int) -> ConvShape:
    return ConvShape(batch, in_channels, out_channels, pixels, pixels)


def normal(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def conv_inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    kernel: int,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias of a layer that keeps the variance."""
    batch, in_channels, out_channels, height, width = ConvShape(*shape)
    x = normal((batch, in_channels, height, width), dtype, generator)
    outer = (in_channels, out_channels) if transposed else (out_channels, in_channels)
    # A result of the transposed one sums a quarter of the taps.
    taps = kernel**2 // 4 if transposed else kernel**2
    weight = normal((*outer, kernel, kernel), torch.float64, generator)
    weight = (weight / math.sqrt(max(1, in_channels) * taps)).to(dtype)
    return x, weight, normal((out_channels,), dtype, generator) * 0.1
