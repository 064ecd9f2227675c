"""Cases of ``vk.group_norm_silu``, as in the ResNet blocks of autoencoders."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.ops import group_norm_silu

EPS = 1e-6

# sd: the autoencoder of Stable Diffusion 1 to 3; train: a small VAE's training step.
SHAPES: dict[str, tuple[int, ...]] = {
    "sd_128c_256px": (1, 128, 256, 256),
    "sd_512c_64px": (1, 512, 64, 64),
    "batch_128c_64px_b4": (4, 128, 64, 64),
    "train_64c_64px_b8": (8, 64, 64, 64),
    "train_32c_32px_b64": (64, 32, 32, 32),
    "train_256c_16px_b16": (16, 256, 16, 16),
    "odd_96c_57px": (1, 96, 57, 57),
}


def groups(channels: int) -> int:
    """32, or the largest power of two below it that divides the channels."""
    return math.gcd(32, channels)


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    channels = shape[1]
    x = 2.0 * normal(*shape) + 0.5
    weight, bias = 1.0 + 0.2 * normal(channels), 0.2 * normal(channels)
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


def ours(x: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
    return group_norm_silu(x, weight, bias, groups(x.shape[1]), eps=EPS, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, groups(x.shape[1]), weight, bias, EPS))


CASES = OpCases("group_norm_silu", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
