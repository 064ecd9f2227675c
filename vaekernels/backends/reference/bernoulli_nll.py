"""Reference of ``vk.bernoulli_nll``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._widen import row_sum, widen


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    x, t = widen(logits, target)
    return row_sum(t * _softplus(-x) + (1.0 - t) * _softplus(x))


def _softplus(x: Tensor) -> Tensor:
    # log(1 + e^x). With the default threshold of 20 it would drop e^-x where float64 holds it.
    return F.softplus(x, threshold=80.0)
