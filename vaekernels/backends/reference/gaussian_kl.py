"""Reference of ``vk.gaussian_kl``."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.backends.reference._widen import row_sum, widen


def gaussian_kl(
    mean: Tensor, logvar: Tensor, prior_mean: Tensor | None, prior_logvar: Tensor | None
) -> Tensor:
    zero = mean.new_zeros(())
    mu, lv, prior_mu, prior_lv = widen(
        mean,
        logvar,
        zero if prior_mean is None else prior_mean,
        zero if prior_logvar is None else prior_logvar,
    )
    ratio = lv - prior_lv
    distance = (mu - prior_mu) ** 2 * torch.exp(-prior_lv)
    return row_sum(0.5 * (torch.exp(ratio) - 1.0 - ratio + distance))
