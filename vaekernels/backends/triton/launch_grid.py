"""What every launcher shares: the dtypes of a computation, and the launch itself."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import INTERPRETED

WARPS = 4
COMPUTE = {torch.float32: tl.float32, torch.float64: tl.float64}


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float32, or float64 if an input is."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


def written_dtype(dtype: torch.dtype) -> torch.dtype:
    """What kernels write where the result is ``dtype``.

    The interpreter cuts a float32 off to bfloat16 instead of rounding it: torch does it.
    """
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def cdiv(extent: int, part: int) -> int:
    """How many parts cover ``extent``; ``triton.cdiv`` takes microseconds on the host."""
    return -(-extent // part)


def next_power_of_2(number: int) -> int:
    """The least one from ``number`` on; Triton's is as slow as its ``cdiv``."""
    return 1 << max(0, number - 1).bit_length()


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else contextlib.nullcontext()


def run(
    kernel: Any, programs: int, like: Tensor, *arguments: Any, warps: int = WARPS, **constants: Any
) -> None:
    """Run so many programs of ``kernel`` on the device of ``like``."""
    with on_device_of(like):
        kernel[(programs,)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)
