"""Attention with one head, as autoencoders have it over the pixels of their smallest image.

For ``vaekernels.nn`` and ``vk.accelerate``, not public.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Of FlashAttention, and of cuDNN's attention.
_WIDEST_HEAD = 256


def prefers_rows(like: Tensor, channels: int) -> bool:
    """Whether PyTorch's fast kernels do not take such a head; an unmeasured rule.

    Args:
        like: a tensor on the device.
        channels: of the head.
    """
    return like.is_cuda and channels > _WIDEST_HEAD


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention with one head, tokens (N, T, C).

    PyTorch's, or :func:`attend_in_rows` where :func:`prefers_rows` and no graph is recorded, which
    would keep every score.
    """
    graph = torch.is_grad_enabled() and any(t.requires_grad for t in (queries, keys, values))
    if prefers_rows(queries, queries.shape[-1]) and not graph:
        return attend_in_rows(queries, keys, values)
    # One head. Four dims: PyTorch's fused kernels take no three.
    return F.scaled_dot_product_attention(
        queries.unsqueeze(1), keys.unsqueeze(1), values.unsqueeze(1)
    ).squeeze(1)


def attend_in_rows(
    queries: Tensor, keys: Tensor, values: Tensor, score_bytes: int = 32 * 2**20
) -> Tensor:
    """The same by two matrix products and a softmax, for some queries at a time.

    Scores are float32 (float64 for float64), from the product to the softmax, whose results are
    rounded once. ``score_bytes`` is what they may fill: they should stay in a GPU's L2 cache.
    """
    batch, tokens, channels = queries.shape
    wide = torch.promote_types(queries.dtype, torch.float32)
    rows = max(1, score_bytes // (batch * keys.shape[1] * wide.itemsize))
    result = torch.empty_like(queries)
    for first in range(0, tokens, rows):
        part = slice(first, first + rows)
        scores = _scores(queries[:, part], keys.transpose(1, 2), wide)
        weights = scores.mul_(channels**-0.5).softmax(-1).to(queries.dtype)
        result[:, part] = weights @ values
    return result


def _scores(queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Their product, not rounded to the dtype of its factors."""
    if queries.is_cuda and queries.dtype != dtype:
        return torch.bmm(queries, keys, out_dtype=dtype)
    return queries.to(dtype) @ keys.to(dtype)
