"""Cases of ``vk.conv_transpose4x4``: DCGAN's decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._conv import conv_inputs, square
from vaekernels.ops import conv_transpose4x4 as op

SHAPES: dict[str, tuple[int, ...]] = {
    "dcgan_256c_128c_4px_b64": square(64, 256, 128, 4),
    "dcgan_128c_64c_8px_b64": square(64, 128, 64, 8),
    "dcgan_64c_32c_16px_b64": square(64, 64, 32, 16),
    "dcgan_32c_3c_32px_b64": square(64, 32, 3, 32),
    "dcgan_128c_64c_8px_b16": square(16, 128, 64, 8),
    "dcgan_128c_64c_8px_b1": square(1, 128, 64, 8),
    "odd_160c_96c_29px_b2": square(2, 160, 96, 29),
    "odd_20c_33px_b3": square(3, 20, 20, 33),
}


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return conv_inputs(shape, dtype, generator, kernel=4, transposed=True)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return op(*tensors, **options)


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


CASES = OpCases("conv_transpose4x4", inputs, ours, eager, (0, 1, 2), shapes=SHAPES)
