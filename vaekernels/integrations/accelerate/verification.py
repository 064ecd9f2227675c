"""Compares the outputs of a model before and after it is accelerated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.utils.tree import tensors_of


@dataclass(frozen=True)
class Difference:
    """The difference of one output of an accelerated model from the original's.

    Attributes:
        output: its path in what the model returns: ``"sample"``, ``"0"``; "" for a single tensor.
        max: the largest difference over the largest magnitude of the original.
        mean: the mean difference over the mean magnitude. For integers the share that differs.
    """

    output: str
    max: float
    mean: float

    def __str__(self) -> str:
        name = f"{self.output}: " if self.output else ""
        return f"{name}relative error {self.max:.1e} at most, {self.mean:.1e} on average"


def outputs(model: nn.Module, example: object) -> dict[str, Tensor]:
    """The tensors that ``model`` returns for ``example`` in evaluation, by their path.

    Args:
        model: its mode and the random generators are restored.
        example: a tensor, a tuple of arguments, or a mapping of named ones.
    """
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    if isinstance(example, Tensor):
        args = (example,)
    elif isinstance(example, tuple):
        args = example
    elif isinstance(example, Mapping):
        kwargs = example
    else:
        raise TypeError(
            "accelerate: verify must be a tensor, a tuple of arguments or a mapping of named ones; "
            f"got {type(example).__name__}"
        )
    result = evaluated(model, args, kwargs)
    return {name: tensor.clone() for name, tensor in tensors_of(result)}


def evaluated(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The result of ``model`` in evaluation, without gradients.

    Args:
        model: its mode and the random generators are restored.
        args: of the call.
        kwargs: of the call.
    """
    devices = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
    with _evaluation(model), torch.no_grad(), torch.random.fork_rng(devices):
        return model(*args, **kwargs)


def compare(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[Difference, ...]:
    """The differences of the outputs of two runs."""
    return tuple(_difference(name, got[name], expected[name]) for name in expected)


def _difference(name: str, got: Tensor, expected: Tensor) -> Difference:
    if expected.numel() == 0:
        return Difference(name, 0.0, 0.0)
    if not expected.is_floating_point():
        share = (got != expected).double().mean().item()
        return Difference(name, float(share > 0), share)
    error, size = (got.double() - expected.double()).abs(), expected.double().abs()
    tiny = torch.finfo(torch.float64).tiny
    return Difference(
        name,
        (error.max() / size.max().clamp(min=tiny)).item(),
        (error.mean() / size.mean().clamp(min=tiny)).item(),
    )


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
