"""The activations that the convolutions end with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def activate(y: Tensor, activation: str | None, negative_slope: float) -> Tensor:
    if activation == "relu":
        return F.relu(y)
    if activation == "silu":
        return F.silu(y)
    if activation == "leaky_relu":
        return F.leaky_relu(y, negative_slope)
    return y
