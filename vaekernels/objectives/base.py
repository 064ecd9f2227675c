"""What an objective is: ``(model, batch, step) -> LossTerms``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class Batch(Protocol):
    """Images with their ids."""

    @property
    def x(self) -> Tensor:
        """(B, C, H, W)."""

    @property
    def ids(self) -> Tensor:
        """(B,) int64: each image's identity in the noise."""


@dataclass
class LossTerms:
    """The loss of a batch and the terms it consists of.

    Attributes:
        total: the scalar that is minimised: a mean over the batch.
        terms: by name, what is logged: (B,) for each image, or a scalar. Training logs the means;
            the loss that is reported of held-out images is the sum of their terms.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Objective(Protocol):
    """A loss to train with.

    A subclass must implement ``__call__``; the other methods add nothing to the log by default.
    """

    def __call__(self, model: Any, batch: Batch, step: int) -> LossTerms:
        """The loss of ``batch`` at the training step ``step``, counted from 0.

        Everything random is a function of the objective, ``batch.ids`` and ``step``: a run that is
        resumed then ends in the weights of one that was not interrupted.
        """
        ...

    def settings(self, step: int) -> dict[str, float]:
        """Values of the schedule at ``step``, by name, for the log."""
        return {}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Figures derived from the means of the terms, by name, for the log."""
        return {}
