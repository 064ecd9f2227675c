"""Reference of ``vk.rsample_kl``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekernels.backends.reference import noise
from vaekernels.backends.reference._widen import row_sum, widen


def rsample_kl(
    mean: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: int,
    sample_ids: Tensor | None,
    logvar_min: float,
    logvar_max: float,
) -> tuple[Tensor, Tensor]:
    eps = noise.normals(mean.shape, seed, step, sample_ids, mean.device)
    mu, lv = widen(mean, logvar)
    if (logvar_min, logvar_max) != (-math.inf, math.inf):  # a clamp gives a NaN no gradient
        lv = lv.clamp(logvar_min, logvar_max)
    z = mu + torch.exp(0.5 * lv) * eps
    kl = row_sum(0.5 * (mu * mu + torch.exp(lv) - 1.0 - lv))
    return z.to(mean.dtype), kl
