"""Alternative forms of upsampling and of attention in PyTorch, for the census."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# Rows: the taps of a 4-wide filter with stride 2 that is a 3-wide one over repeated samples.
_MERGE = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
SDPA = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


def upsample_interpolate(x: Tensor, weight: Tensor) -> Tensor:
    """Repeat every sample, then 3x3."""
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)


def merged_transposed(weight: Tensor) -> Tensor:
    """The 4x4 filters of :func:`upsample_transposed`, summed in float32."""
    merge = torch.tensor(
        _MERGE, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32)
    )
    wide = weight.to(merge.dtype)
    return torch.einsum("ka,oiab,lb->iokl", merge, wide, merge).to(weight.dtype)


def upsample_transposed(x: Tensor, merged: Tensor) -> Tensor:
    """The same as a transposed 4x4 convolution with stride 2."""
    return F.conv_transpose2d(x, merged, stride=2, padding=1)


def merged_phases(weight: Tensor) -> Tensor:
    """The 2x2 filters of :func:`upsample_phases`: (4 Co, Ci, 2, 2), phases outermost."""
    four = merged_transposed(weight).transpose(0, 1)
    # Results of even rows take taps 3 and 1, those of odd rows 2 and 0.
    taps = ((3, 1), (2, 0))
    return torch.cat([four[:, :, rows][:, :, :, columns] for rows in taps for columns in taps])


def upsample_phases(x: Tensor, phases: Tensor) -> Tensor:
    """The same as one 2x2 convolution to four times the channels, and a shifted pixel shuffle."""
    n, _, height, width = x.shape
    channels = phases.shape[0] // 4
    c = F.conv2d(x, phases, padding=1).unflatten(1, (2, 2, channels))
    y = torch.empty(
        (n, channels, 2 * height, 2 * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    for i in range(2):
        for j in range(2):
            y[:, :, i::2, j::2] = c[:, i, j, :, i : i + height, j : j + width]
    return y


def attention_chunked(q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
    """Matrix product, softmax, matrix product, for ``rows`` queries at a time."""
    result = torch.empty_like(q)
    scaled = q / math.sqrt(q.shape[-1])
    for first in range(0, q.shape[-2], rows):
        span = slice(first, first + rows)
        scores = scaled[..., span, :] @ k.transpose(-1, -2)
        torch.matmul(scores.softmax(-1), v, out=result[..., span, :])
    return result


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, backend: str | None = None) -> Tensor:
    """``scaled_dot_product_attention``, by one of its kernels, or by the one that it chooses."""
    if backend is None:
        return F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(getattr(SDPBackend, backend)):
        return F.scaled_dot_product_attention(q, k, v)
