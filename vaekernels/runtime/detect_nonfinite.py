"""``vk.detect_nonfinite``: find the first op that produces a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NonFiniteError(FloatingPointError):
    """An op returned a NaN or an infinity."""


class detect_nonfinite(TorchDispatchMode):
    """Raise at the first op, forward or backward, that has finite inputs and a non-finite output.

    The outputs of every op are checked, which synchronises with a GPU. Like
    ``torch.autograd.detect_anomaly`` it is meant for debugging. Outside of this context the ops of
    this package do not check their results; NaN and infinity propagate as in PyTorch.

    Raises:
        NonFiniteError: names the op, the output, the number of non-finite elements, and the shapes
            and ranges of the inputs.

    Example:
        >>> with vk.detect_nonfinite():
        ...     model(x).loss.backward()
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in tree_leaves((args, kwargs)) if _is_checked(t)]
        checks_outputs = not _allocates(func) and all(_finite(t) for t in inputs)
        # Described before the call, which may write to its inputs.
        described = _describe(inputs) if checks_outputs else ""
        outputs = func(*args, **kwargs)
        if checks_outputs:
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
    """Whether ``func`` returns uninitialised memory, which may contain any values."""
    return "empty" in func.__name__


def _is_checked(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _describe(inputs: Iterable[Tensor]) -> str:
    return "; ".join(
        f"{tuple(t.shape)} in [{t.min().item():.3g}, {t.max().item():.3g}]" for t in inputs
    )
