"""Cases of ``vk.bernoulli_nll``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.bench.op_inputs._images import IMAGE_SHAPES
from vaekernels.ops import bernoulli_nll


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 4.0
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logits.to(dtype), target.to(dtype)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return bernoulli_nll(*tensors, **options)


def eager(logits: Tensor, target: Tensor) -> Tensor:
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return nll.reshape(logits.shape[0], -1).sum(1)


CASES = OpCases("bernoulli_nll", inputs, ours, eager, (0,), shapes=IMAGE_SHAPES)
