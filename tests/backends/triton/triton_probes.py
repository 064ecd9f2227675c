"""Kernels that expose the device functions to the tests."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import elementary
from vaekernels.backends.triton.conv.tf32 import round_to_tf32
from vaekernels.backends.triton.noise import philox_words


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


@triton.jit
def tf32_kernel(out, x, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    tl.store(out + index, round_to_tf32(tl.load(x + index), True))


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Every element of ``x``."""
    size = triton.next_power_of_2(x.numel())
    padded = torch.nn.functional.pad(x, (0, size - x.numel()))
    out = torch.empty_like(padded)
    tf32_kernel[(1,)](out, padded, size)
    return out[: x.numel()]
