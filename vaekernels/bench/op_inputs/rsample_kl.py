"""Cases of ``vk.rsample_kl``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaekernels.bench.op_inputs._case import OpCases
from vaekernels.ops import rsample_kl


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    mean = torch.randn(shape, generator=generator, dtype=torch.float64)
    logvar = torch.randn(shape, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    return mean.to(dtype), logvar.to(dtype)


def ours(mean: Tensor, logvar: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    return rsample_kl(mean, logvar, **options)


def eager(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    logvar = logvar.clamp(-30.0, 20.0)
    z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    kl = 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar)
    return z, kl.reshape(mean.shape[0], -1).sum(1)


CASES = OpCases("rsample_kl", inputs, ours, eager, (0, 1), deterministic_eager=False)
