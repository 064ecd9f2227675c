"""Kernels that expose the device functions to the tests."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.triton import elementary
from vaekernels.triton.noise import philox_words


@triton.jit
def philox_kernel(out, seed, step, sample_id, block):
    w0, w1, w2, w3 = philox_words(seed, step, tl.load(sample_id), tl.load(block))
    tl.store(out, w0.to(tl.int64))
    tl.store(out + 1, w1.to(tl.int64))
    tl.store(out + 2, w2.to(tl.int64))
    tl.store(out + 3, w3.to(tl.int64))


@triton.jit
def unary_kernel(out, x, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tl.store(out + index, FUNCTION(tl.load(x + index)))


def unary(name: str, x: Tensor) -> Tensor:
    """An elementary function of every element of ``x``."""
    size = triton.next_power_of_2(x.numel())
    padded = torch.nn.functional.pad(x, (0, size - x.numel()), value=1.0)
    out = torch.empty_like(padded)
    unary_kernel[(1,)](out, padded, getattr(elementary, name), size)
    return out[: x.numel()]
