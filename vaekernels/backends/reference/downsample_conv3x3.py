"""Reference of ``vk.downsample_conv3x3``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._activate import activate


def downsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: str,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    if padding == "asymmetric":
        y = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
    else:
        y = F.conv2d(x, weight, bias, stride=2, padding=1)
    return activate(y, activation, negative_slope)
