"""Reference of ``vk.gaussian_nll``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekernels.backends.reference._widen import row_sum, widen


def gaussian_nll(mean: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    mu, t, lv = widen(mean, target, logvar)
    return row_sum(0.5 * (math.log(2.0 * math.pi) + lv + (t - mu) ** 2 * torch.exp(-lv)))
