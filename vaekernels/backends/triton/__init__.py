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

# Triton decides once, when a function is decorated, whether it will be interpreted; its own
# library functions were decorated when it was imported, ours are about to be.
INTERPRETED: bool = triton.knobs.runtime.interpret
_HALF_INTERPRETED = isinstance(tl.philox, triton.runtime.JITFunction) == INTERPRETED


def refusals(device: str) -> list[str]:
    """Reasons why Triton cannot run kernels on ``device``; empty if it can."""
    reasons = []
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
