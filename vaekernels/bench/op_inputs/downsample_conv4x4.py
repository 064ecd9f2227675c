"""Cases of ``vk.downsample_conv4x4``: DCGAN's encoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._conv import conv_inputs, square
from vaekernels.ops import downsample_conv4x4 as op

SHAPES: dict[str, tuple[int, ...]] = {
    "dcgan_3c_32c_64px_b64": square(64, 3, 32, 64),
    "dcgan_32c_64c_32px_b64": square(64, 32, 64, 32),
    "dcgan_64c_128c_16px_b64": square(64, 64, 128, 16),
    "dcgan_128c_256c_8px_b64": square(64, 128, 256, 8),
    "dcgan_64c_128c_16px_b16": square(16, 64, 128, 16),
    "dcgan_64c_128c_16px_b1": square(1, 64, 128, 16),
    "odd_96c_160c_57px_b2": square(2, 96, 160, 57),
    "odd_20c_33px_b3": square(3, 20, 20, 33),
}


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return conv_inputs(shape, dtype, generator, kernel=4)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return op(*tensors, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=2, padding=1)


CASES = OpCases("downsample_conv4x4", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
