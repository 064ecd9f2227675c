"""Reference of ``vk.downsample_conv4x4``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._activate import activate


def downsample_conv4x4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    y = F.conv2d(x, weight, bias, stride=2, padding=1)
    return activate(y, activation, negative_slope)
