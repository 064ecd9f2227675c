"""Cases of ``vk.gaussian_kl``: a learned prior; the standard normal is rsample_kl's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.ops import gaussian_kl


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    return tuple(draw.to(dtype) for draw in draws)


def ours(*tensors: Tensor, **options: Any) -> Tensor:
    return gaussian_kl(*tensors, **options)


def eager(mean: Tensor, logvar: Tensor, prior_mean: Tensor, prior_logvar: Tensor) -> Tensor:
    ratio = logvar - prior_logvar
    kl = 0.5 * (ratio.exp() - 1.0 - ratio + (mean - prior_mean) ** 2 * (-prior_logvar).exp())
    return kl.reshape(mean.shape[0], -1).sum(1)


CASES = OpCases("gaussian_kl", inputs, ours, eager, (0, 1, 2, 3))
