"""The outermost accelerated call of a thread: the one whose result is looked at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from vaekernels.runtime.nonfinite_policy import guarded

_inside: ContextVar[bool] = ContextVar("vaekernels_inside_accelerated", default=False)


def guarded_if_outermost(forward: Callable[..., Any], choice: str) -> Callable[..., Any]:
    """``forward``, guarded where no other that is guarded has called it.

    Args:
        forward: of a class of modules.
        choice: what is done about a result that is not finite: one of ``guard.CHOICES``.
    """

    @functools.wraps(forward)
    def outermost(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _inside.get() or _is_backward():
            return forward(self, *args, **kwargs)
        token = _inside.set(True)
        try:
            name = f"{type(self).__name__}.forward"
            call = functools.partial(forward, self)
            return guarded(self, name, call, args, kwargs, choice)
        finally:
            _inside.reset(token)

    return outermost


def _is_backward() -> bool:
    """Whether a backward computes activations again: parts, of a result that was looked at."""
    return torch._C._current_graph_task_id() != -1
