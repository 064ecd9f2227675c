"""The precision promise in one place: half types are computed in float32, float64 in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors in the widest of their dtypes and float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def row_sum(elements: Tensor) -> Tensor:
    """Sum over all dims but the first."""
    # The added dim serves tensors of shape (B,); reshape(B, -1) would refuse an empty batch.
    return elements.unsqueeze(-1).flatten(1).sum(1)
