"""Reference of ``vk.laplace_nll``."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.backends.reference._widen import row_sum, widen


def laplace_nll(mean: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    mu, t, b = widen(mean, target, scale)
    return row_sum(torch.log(2.0 * b) + (t - mu).abs() / b)
