"""The Triton backend: one file per op, kernels and their launchers.

The kernels run on CUDA tensors, and on CPU tensors in Triton's interpreter
(``TRITON_INTERPRET=1``, set before Triton is imported), where tests prove them without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import triton
import triton.language as tl

_Function = TypeVar("_Function", bound=Callable[..., Any])

OPS = (
    "bernoulli_nll",
    "conv3x3",
    "conv_transpose4x4",
    "downsample_conv3x3",
    "downsample_conv4x4",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "randn",
    "rsample_kl",
    "upsample_conv3x3",
)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# Triton decides once, when a function is decorated, whether it will be interpreted; its own
# library functions were decorated when it was imported, ours are about to be.
INTERPRETED: bool = triton.knobs.runtime.interpret
_HALF_INTERPRETED = isinstance(tl.philox, triton.runtime.JITFunction) == INTERPRETED


def refusals(op: str, device: str, dtype: torch.dtype) -> list[str]:
    """Why Triton cannot run ``op`` on ``dtype`` tensors on ``device``; empty if it can."""
    reasons = []
    if op not in OPS:
        reasons.append(f"{op} has no Triton kernels")
    if dtype not in DTYPES:
        reasons.append(f"the Triton kernels do not take {dtype}")
    if _HALF_INTERPRETED:
        reasons.append("TRITON_INTERPRET was changed after the package triton was imported")
    if device not in _device_types():
        reasons.append(
            f"tensors are on {device}, expected cuda "
            "(or cpu in Triton's interpreter, TRITON_INTERPRET=1)"
        )
    return reasons


def implements(name: str) -> Callable[[_Function], _Function]:
    """Decorate the implementation of the torch op ``vaekernels_triton::<name>``."""

    def register(function: _Function) -> _Function:
        torch.library.impl(f"vaekernels_triton::{name}", _device_types(), function)
        return function

    return register


def _device_types() -> tuple[str, ...]:
    return ("cuda", "cpu") if INTERPRETED else ("cuda",)
