"""Reference of ``vk.conv3x3``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._activate import activate


def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_groups: int,
    norm_eps: float,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    if norm_weight is not None:
        x = F.silu(F.group_norm(x, norm_groups, norm_weight, norm_bias, norm_eps))
    y = F.conv2d(x, weight, bias, padding=1)
    if residual is not None:
        y = y + residual
    return activate(y, activation, negative_slope)
