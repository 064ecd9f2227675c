"""Records the convolutions that a model calls on an example."""

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
from vaekernels.runtime.conv_algorithm import ConvAlgorithm, algorithms_of


@dataclass(frozen=True)
class LayerCall:
    """A call of a convolution with the filters of a layer.

    Attributes:
        op: the op that was called.
        backend: the backend that ran it.
        dtype: of the computation.
        x: the shape of the images.
        weight: the shape of the filters.
        forward: the algorithm of the forward pass.
        x_gradient: the algorithm of the gradient of the images.
        weight_gradient: the algorithm of the gradient of the filters.
    """

    op: str
    backend: str
    dtype: torch.dtype
    x: tuple[int, ...]
    weight: tuple[int, ...]
    forward: ConvAlgorithm
    x_gradient: ConvAlgorithm
    weight_gradient: ConvAlgorithm

    def __str__(self) -> str:
        return f"{self.op} on {self.backend}, {self.x}: {self.forward}"


def recorded_calls(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[Tensor, LayerCall]]:
    """The filters and the calls of ``model(*args, **kwargs)`` in evaluation, in order."""
    with registry.recorded_choices() as choices, _uncompiled():
        evaluated(model, args, kwargs)
    with torch.no_grad():  # as in the run: the algorithm depends on it
        return [
            (choice.arguments["weight"], _as_call(choice)) for choice in choices if choice.arguments
        ]


def _as_call(choice: registry.Choice) -> LayerCall:
    x, weight = (tuple(choice.arguments[name].shape) for name in ("x", "weight"))
    return LayerCall(choice.op, choice.backend, choice.dtype, x, weight, *algorithms_of(choice))


def _uncompiled() -> AbstractContextManager[object]:
    """Run compiled functions eagerly: only Python code records its calls."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled; importing it takes seconds
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")
