"""``vk.detect_nonfinite``: find the first op that makes a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NonFiniteError(FloatingPointError):
    """An op made a NaN or an infinity out of finite inputs."""


class detect_nonfinite(TorchDispatchMode):
    """Raise at the first op, forward or backward, whose output is not finite though its inputs are.

    Every op is followed by a check of its outputs, which synchronises a GPU: for debugging, as
    ``torch.autograd.detect_anomaly`` is. The ops of this library never check by themselves;
    NaN and infinity propagate through them as through PyTorch's.

    Raises:
        NonFiniteError: names the op, the output, how many elements are not finite, and its
            inputs' shapes and ranges.

    Example:
        >>> with vk.detect_nonfinite():
        ...     model(x).loss.backward()
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in tree_leaves((args, kwargs)) if _is_checked(t)]
        blames = not _allocates(func) and all(_finite(t) for t in inputs)
        # Ranges are taken before the call: it may write into its inputs.
        described = _describe(inputs) if blames else ""
        outputs = func(*args, **kwargs)
        if blames:
            for index, tensor in enumerate(tree_leaves(outputs)):
                if _is_checked(tensor) and not _finite(tensor):
                    bad = int((~torch.isfinite(tensor)).sum())
                    raise NonFiniteError(
                        f"{func}: output {index} of shape {tuple(tensor.shape)} has {bad} "
                        f"non-finite elements of {tensor.numel()}; its inputs are finite: "
                        f"{described}"
                    )
        return outputs


def _allocates(func: Any) -> bool:
    """Uninitialised memory may hold anything."""
    return "empty" in func.__name__


def _is_checked(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _describe(inputs: Iterable[Tensor]) -> str:
    return "; ".join(
        f"{tuple(t.shape)} in [{t.min().item():.3g}, {t.max().item():.3g}]" for t in inputs
    )
