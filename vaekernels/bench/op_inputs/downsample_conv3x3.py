"""Cases of ``vk.downsample_conv3x3``: latent diffusion's padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._conv import conv_inputs, square
from vaekernels.ops import downsample_conv3x3 as op

SHAPES: dict[str, tuple[int, ...]] = {
    "sd_128c_256px": square(1, 128, 128, 256),
    "sd_256c_128px": square(1, 256, 256, 128),
    "sd_512c_64px": square(1, 512, 512, 64),
    "taef2_64c_256px": square(1, 64, 64, 256),
    "train_64c_64px_b8": square(8, 64, 64, 64),
    "train_64c_32px_b32": square(32, 64, 64, 32),
    "odd_96c_57px_b2": square(2, 96, 96, 57),
    "odd_20c_33px": square(1, 20, 160, 33),
}


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return conv_inputs(shape, dtype, generator, kernel=3)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return op(*tensors, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)


CASES = OpCases("downsample_conv3x3", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
