"""Cases of ``vk.conv3x3``: alone, and as a ResNet block uses it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._conv import conv_inputs, normal, square
from vaekernels.ops import NormPrologue
from vaekernels.ops import conv3x3 as op

# sd: the autoencoder of Stable Diffusion 1 to 3; taef2: the tiny one of FLUX.2; train: a small
# VAE's training step. Named by width and size, the batch where it is not 1.
SHAPES: dict[str, tuple[int, ...]] = {
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

RESNET_SHAPES: dict[str, tuple[int, ...]] = {
    name: SHAPES[name]
    for name in (
        "sd_mid_512c_64px",
        "sd_256c_128px",
        "sd_128c_256px",
        "train_64c_32px_b32",
        "odd_96c_57px_b2",
    )
}


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return conv_inputs(shape, dtype, generator, kernel=3)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return op(*tensors, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def groups_of(channels: int) -> int:
    """32 as everywhere, or as many of them as the channels divide into."""
    return math.gcd(channels, 32)


def resnet_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """With a residual and the normalisation's weight and bias."""
    x, weight, bias = conv_inputs(shape, dtype, generator, kernel=3)
    residual = normal((x.shape[0], weight.shape[0], *x.shape[2:]), dtype, generator)
    norm_weight = 1.0 + 0.2 * normal((x.shape[1],), dtype, generator)
    return x, weight, bias, residual, norm_weight, 0.2 * normal((x.shape[1],), dtype, generator)


def resnet_ours(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    **options: Any,
) -> Tensor:
    norm = NormPrologue(norm_weight, norm_bias, groups_of(x.shape[1]))
    return op(x, weight, bias, residual=residual, norm=norm, **options)


def resnet_eager(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
) -> Tensor:
    normalised = F.group_norm(x, groups_of(x.shape[1]), norm_weight, norm_bias, 1e-6)
    return F.conv2d(F.silu(normalised), weight, bias, padding=1) + residual


CASES = OpCases("conv3x3", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
RESNET = OpCases(
    "conv3x3", resnet_inputs, resnet_ours, resnet_eager, (0, 1, 2, 3, 4, 5), shapes=RESNET_SHAPES
)
