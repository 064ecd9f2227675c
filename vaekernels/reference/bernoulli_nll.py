"""Reference of ``vk.bernoulli_nll``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.reference._widen import row_sum, widen


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    x, t = widen(logits, target)
    return row_sum(F.binary_cross_entropy_with_logits(x, t, reduction="none"))
