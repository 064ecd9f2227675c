"""The convolutions that a model computes on an example, as they were called."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.backends import registry
from vaekernels.integrations.accelerate.verification import evaluated
from vaekernels.runtime.conv_algorithm import Way, ways_of


@dataclass(frozen=True)
class LayerCall:
    """A convolution with the filters of a layer.

    Attributes:
        op: that was called.
        backend: that ran it.
        dtype: that it computed in.
        x: the shape of the images.
        weight: that of the filters.
        forward: how the result was computed.
        x_gradient: how the gradient of the images would be.
        weight_gradient: how that of the filters would be.
    """

    op: str
    backend: str
    dtype: torch.dtype
    x: tuple[int, ...]
    weight: tuple[int, ...]
    forward: Way
    x_gradient: Way
    weight_gradient: Way

    def __str__(self) -> str:
        return f"{self.op} on {self.backend}, {self.x}: {self.forward}"


def recorded_calls(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[Tensor, LayerCall]]:
    """What ``model(*args, **kwargs)`` calls in evaluation: filters and call, in their order."""
    with registry.recorded_choices() as choices, _uncompiled():
        evaluated(model, args, kwargs)
    with torch.no_grad():  # as the run: it counts for the ways
        return [
            (choice.arguments["weight"], _as_call(choice)) for choice in choices if choice.arguments
        ]


def _as_call(choice: registry.Choice) -> LayerCall:
    x, weight = (tuple(choice.arguments[name].shape) for name in ("x", "weight"))
    return LayerCall(choice.op, choice.backend, choice.dtype, x, weight, *ways_of(choice))


def _uncompiled() -> AbstractContextManager[object]:
    """Runs what was compiled as Python, which alone records."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
