"""Cases of ``vk.gaussian_nll``: one learned log variance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._images import IMAGE_SHAPES, images
from vaekernels.ops import gaussian_nll


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    mean, target = images(shape, dtype, generator)
    return mean, target, torch.tensor(-1.5, dtype=dtype)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return gaussian_nll(*tensors, **options)


def eager(mean: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    nll = 0.5 * (math.log(2.0 * math.pi) + logvar + (target - mean) ** 2 * (-logvar).exp())
    return nll.reshape(mean.shape[0], -1).sum(1)


CASES = OpCases("gaussian_nll", inputs, ours, eager, (0, 2), shapes=IMAGE_SHAPES)
