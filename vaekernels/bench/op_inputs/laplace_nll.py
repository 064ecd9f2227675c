"""Cases of ``vk.laplace_nll``: one learned scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._images import IMAGE_SHAPES, images
from vaekernels.ops import laplace_nll


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    mean, target = images(shape, dtype, generator)
    return mean, target, torch.tensor(0.25, dtype=dtype)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return laplace_nll(*tensors, **options)


def eager(mean: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    nll = torch.log(2.0 * scale) + (target - mean).abs() / scale
    return nll.reshape(mean.shape[0], -1).sum(1)


CASES = OpCases("laplace_nll", inputs, ours, eager, (0, 2), shapes=IMAGE_SHAPES)
