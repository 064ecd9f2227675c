"""Reference of ``vk.group_norm_silu``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends.reference._widen import widen


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, activation: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    wide, w, b = widen(x, weight, bias)
    # F.group_norm, which keeps the statistics to itself; this op reads its vectors as contiguous.
    y, mean, rstd = torch.native_group_norm(
        _dense(wide),
        w.contiguous(),
        b.contiguous(),
        x.shape[0],
        x.shape[1],
        math.prod(x.shape[2:]),
        groups,
        eps,
    )
    y = F.silu(y) if activation == "silu" else y
    return y.to(x.dtype), mean, rstd


def _dense(x: Tensor) -> Tensor:
    """``x`` in a layout that PyTorch's kernels take: channels_last only on CPU.

    PyTorch finds the layout by the strides, also where dimensions of size 1 could have any stride;
    ``is_contiguous`` ignores these.
    """
    if x.device.type == "cpu" and x.ndim == 4:
        _, channels, height, width = x.shape
        row = channels * width
        if x.stride() == (height * row, 1, row, channels):
            return x
    return x.contiguous()
