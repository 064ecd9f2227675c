"""Reference of ``vk.upsample_conv3x3``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._activate import activate


def upsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    y = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    return activate(y, activation, negative_slope)
