"""Cases of the convolutions; of ``vk.conv3x3`` also as a ResNet block uses it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels import ops
from vaekernels.bench.op_inputs._case import OpCases


class ConvShape(NamedTuple):
    """Shape of a convolution: its input, and the number of output channels."""

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int


def square(batch: int, in_channels: int, out_channels: int, pixels: int) -> ConvShape:
    """A convolution of square images."""
    return ConvShape(batch, in_channels, out_channels, pixels, pixels)


# sd: the autoencoder of Stable Diffusion 1 to 3; taef2: the tiny one of FLUX.2; dcgan: DCGAN's
# encoder and decoder; train: a small VAE's training step. Named by width and size, the batch where
# it is not 1.
_CONV3X3_SHAPES: dict[str, tuple[int, ...]] = {
    "sd_512c_32px": square(1, 512, 512, 32),
    "sd_mid_512c_64px": square(1, 512, 512, 64),
    "sd_256c_128px": square(1, 256, 256, 128),
    "sd_128c_256px": square(1, 128, 128, 256),
    "sd_decoder_512px_c128": square(1, 128, 128, 512),
    "sd_narrowing_512c_256c_128px": square(1, 512, 256, 128),
    "sd_latent_4c_512c_64px": square(1, 4, 512, 64),
    "sd_image_3c_128c_256px": square(1, 3, 128, 256),
    "sd_image_128c_3c_256px": square(1, 128, 3, 256),
    "taef2_64c_256px": square(1, 64, 64, 256),
    "taef2_64c_64px": square(1, 64, 64, 64),
    "batch_512c_32px_b8": square(8, 512, 512, 32),
    "train_64c_64px_b8": square(8, 64, 64, 64),
    "train_64c_32px_b32": square(32, 64, 64, 32),
    "train_32c_16px_b64": square(64, 32, 32, 16),
    "odd_96c_57px_b2": square(2, 96, 96, 57),
    "odd_160c_33px_b3": square(3, 160, 96, 33),
    "odd_20c_33px": square(1, 20, 20, 33),
}
_UPSAMPLE_SHAPES: dict[str, tuple[int, ...]] = {
    "sd_512c_32px": square(1, 512, 512, 32),
    "sd_512c_64px": square(1, 512, 512, 64),
    "sd_256c_128px": square(1, 256, 256, 128),
    "taef2_64c_32px": square(1, 64, 64, 32),
    "taef2_64c_128px": square(1, 64, 64, 128),
    "train_64c_64px_b8": square(8, 64, 64, 64),
    "train_32c_16px_b64": square(64, 32, 32, 16),
    "odd_96c_57px_b2": square(2, 96, 96, 57),
    "odd_160c_33px": square(1, 160, 20, 33),
}
_DOWNSAMPLE3X3_SHAPES: dict[str, tuple[int, ...]] = {
    "sd_128c_256px": square(1, 128, 128, 256),
    "sd_256c_128px": square(1, 256, 256, 128),
    "sd_512c_64px": square(1, 512, 512, 64),
    "taef2_64c_256px": square(1, 64, 64, 256),
    "train_64c_64px_b8": square(8, 64, 64, 64),
    "train_64c_32px_b32": square(32, 64, 64, 32),
    "odd_96c_57px_b2": square(2, 96, 96, 57),
    "odd_20c_33px": square(1, 20, 160, 33),
}
_DOWNSAMPLE4X4_SHAPES: dict[str, tuple[int, ...]] = {
    "dcgan_3c_32c_64px_b64": square(64, 3, 32, 64),
    "dcgan_32c_64c_32px_b64": square(64, 32, 64, 32),
    "dcgan_64c_128c_16px_b64": square(64, 64, 128, 16),
    "dcgan_128c_256c_8px_b64": square(64, 128, 256, 8),
    "dcgan_64c_128c_16px_b16": square(16, 64, 128, 16),
    "dcgan_64c_128c_16px_b1": square(1, 64, 128, 16),
    "odd_96c_160c_57px_b2": square(2, 96, 160, 57),
    "odd_20c_33px_b3": square(3, 20, 20, 33),
}
_TRANSPOSE4X4_SHAPES: dict[str, tuple[int, ...]] = {
    "dcgan_256c_128c_4px_b64": square(64, 256, 128, 4),
    "dcgan_128c_64c_8px_b64": square(64, 128, 64, 8),
    "dcgan_64c_32c_16px_b64": square(64, 64, 32, 16),
    "dcgan_32c_3c_32px_b64": square(64, 32, 3, 32),
    "dcgan_128c_64c_8px_b16": square(16, 128, 64, 8),
    "dcgan_128c_64c_8px_b1": square(1, 128, 64, 8),
    "odd_160c_96c_29px_b2": square(2, 160, 96, 29),
    "odd_20c_33px_b3": square(3, 20, 20, 33),
}
_RESNET_SHAPES = {
    name: _CONV3X3_SHAPES[name]
    for name in (
        "sd_mid_512c_64px",
        "sd_256c_128px",
        "sd_128c_256px",
        "train_64c_32px_b32",
        "odd_96c_57px_b2",
    )
}


def _normal(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    generator: torch.Generator,
    *,
    kernel: int,
    transposed: bool = False,
) -> tuple[Tensor, ...]:
    """x, weight and bias of a layer that preserves the variance."""
    batch, in_channels, out_channels, height, width = ConvShape(*shape)
    x = _normal((batch, in_channels, height, width), dtype, generator)
    outer = (in_channels, out_channels) if transposed else (out_channels, in_channels)
    # An output of the transposed convolution sums a quarter of the taps.
    taps = kernel**2 // 4 if transposed else kernel**2
    weight = _normal((*outer, kernel, kernel), torch.float64, generator)
    weight = (weight / math.sqrt(max(1, in_channels) * taps)).to(dtype)
    return x, weight, _normal((out_channels,), dtype, generator) * 0.1


def _cases(
    name: str, eager: Any, shapes: dict[str, tuple[int, ...]], kernel: int, transposed: bool = False
) -> OpCases:
    inputs = partial(_inputs, kernel=kernel, transposed=transposed)
    return OpCases(name, inputs, getattr(ops, name), eager, (0, 1, 2), shapes=shapes)


def _conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def _upsample(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def _downsample3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)


def _downsample4x4(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=2, padding=1)


def _transpose4x4(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


CASES = (
    _cases("conv3x3", _conv3x3, _CONV3X3_SHAPES, 3),
    _cases("upsample_conv3x3", _upsample, _UPSAMPLE_SHAPES, 3),
    _cases("downsample_conv3x3", _downsample3x3, _DOWNSAMPLE3X3_SHAPES, 3),
    _cases("downsample_conv4x4", _downsample4x4, _DOWNSAMPLE4X4_SHAPES, 4),
    _cases("conv_transpose4x4", _transpose4x4, _TRANSPOSE4X4_SHAPES, 4, transposed=True),
)


def groups_of(channels: int) -> int:
    """32, or the largest power of two below it that divides the channels."""
    return math.gcd(channels, 32)


def _resnet_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """With a residual and the normalisation's weight and bias."""
    x, weight, bias = _inputs(shape, dtype, generator, kernel=3)
    residual = _normal((x.shape[0], weight.shape[0], *x.shape[2:]), dtype, generator)
    norm_weight = 1.0 + 0.2 * _normal((x.shape[1],), dtype, generator)
    return x, weight, bias, residual, norm_weight, 0.2 * _normal((x.shape[1],), dtype, generator)


def _resnet_ours(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    **options: Any,
) -> Tensor:
    norm = ops.NormPrologue(norm_weight, norm_bias, groups_of(x.shape[1]))
    return ops.conv3x3(x, weight, bias, residual=residual, norm=norm, **options)


def _resnet_eager(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    normalised = F.group_norm(x, groups_of(x.shape[1]), norm_weight, norm_bias, 1e-6)
    return F.conv2d(F.silu(normalised), weight, bias, padding=1) + residual


RESNET = OpCases(
    "conv3x3", _resnet_inputs, _resnet_ours, _resnet_eager, tuple(range(6)), shapes=_RESNET_SHAPES
)
