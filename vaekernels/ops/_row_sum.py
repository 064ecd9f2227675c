"""What the ops that sum one number per row have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def row_sum_fake(first: Tensor, *others: Tensor) -> Tensor:
    """Fake of an op (B, ...), ... -> (B,) in the widest dtype of its inputs and float32."""
    dtype = torch.float32
    for tensor in (first, *others):
        dtype = torch.promote_types(dtype, tensor.dtype)
    return first.new_empty(first.shape[:1], dtype=dtype)
