"""The ops that the forwards of this package's layers call.

``vaekernels.nn`` registers them; ``vk.accelerate`` and ``vk.explain`` read them, so that neither
imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn


class OpUse(NamedTuple):
    """An op that the forward of a layer calls.

    Attributes:
        op: which.
        parts: the layers whose parameters it takes, and the functions between them by name.
    """

    op: str
    parts: tuple[nn.Module | str, ...]


@runtime_checkable
class UsesOps(Protocol):
    """A layer whose forward calls ops, with its own parameters or its children's."""

    def op_uses(self) -> Sequence[OpUse]:
        """The ops in their order."""
        ...


def op_uses_of(module: nn.Module) -> Sequence[OpUse] | None:
    """The op that the forward of ``module`` runs; None if the layer is not of this package."""
    if not isinstance(module, UsesOps) or "forward" in module.__dict__:
        return None
    # A subclass may override the forward.
    ours = type(module).forward.__module__.startswith("vaekernels.")
    return module.op_uses() if ours else None
