"""Cases of ``vk.upsample_conv3x3``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._conv import conv_inputs, square
from vaekernels.ops import upsample_conv3x3 as op

SHAPES: dict[str, tuple[int, ...]] = {
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


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return conv_inputs(shape, dtype, generator, kernel=3)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return op(*tensors, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


CASES = OpCases("upsample_conv3x3", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
