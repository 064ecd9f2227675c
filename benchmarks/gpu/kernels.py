"""Which backend has kernels for an op, and the algorithm of Triton's convolutions."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import torch

from vaekernels.backends import registry


def fused_backend(
    op: str, device: str, dtype: torch.dtype, wanted: str | None = None
) -> tuple[str | None, str]:
    """The backend with kernels for such tensors; or None, and the reasons of the refusals."""
    if wanted is None:
        wanted = registry.select(op, device, dtype)
        if wanted != "reference":
            return wanted, ""
        names = [name for name in registry.RANKING[device] if name != "reference"]
    else:
        names = [wanted]
    reasons = {name: registry.refusals(name, op, device, dtype) for name in names}
    if wanted in reasons and not reasons[wanted]:
        return wanted, ""
    return None, "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())


def tap_gemm(tile: Any = None) -> contextlib.AbstractContextManager[None]:
    """Within the context Triton's convolutions run our own kernel, where cuDNN may be chosen."""
    dispatch = importlib.import_module("vaekernels.backends.triton.conv.dispatch")
    forced: contextlib.AbstractContextManager[None] = dispatch.force_algorithm("tap_gemm", tile)
    return forced
