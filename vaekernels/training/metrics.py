"""Running means of the losses, and the stop at the first one that is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaekernels.objectives import LossTerms, Objective
from vaekernels.training.config import TrainConfig

# Reading a loss waits for all work that is queued on a GPU: it is done once in so many batches.
_CUDA_INTERVAL = 50
# Trained weights stay far below; Adam with a rate too high passes it in a few steps.
_DIVERGED = 1e4


class NonFiniteLossError(FloatingPointError):
    """Training stopped at a loss that is NaN or infinite; the message says where and why."""


class Losses(dict[str, float]):
    """Means per image by name: ``loss``, the terms, and what the objective derives from them.

    They are attributes too: of an ELBO ``losses.nll``, ``losses.kl`` and ``losses.elbo``.
    """

    def __getattr__(self, name: str) -> float:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"no loss {name}; there are {', '.join(self)}") from error

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """For the history."""
        return {prefix + name: value for name, value in self.items()}


class Meter:
    """Collects the losses of steps on their device and copies them to the CPU a block at a time."""

    def __init__(self, device: torch.device, objective: Objective) -> None:
        self.interval = _CUDA_INTERVAL if device.type == "cuda" else 1
        self.last: Losses | None = None
        self.names: tuple[str, ...] = ()
        # Sums over the images of loss and terms, and the number of images.
        self.total = torch.zeros((), dtype=torch.float64)
        self._objective, self._device = objective, device
        self._rows = torch.empty(0)
        self._steps: list[int] = []

    def add(self, step: int, out: LossTerms, images: int) -> tuple[int, str] | None:
        """Add a batch of ``step``; returns :meth:`flush` when a block is full, else None."""
        if not self.names:
            self.names = tuple(out.terms)
            self._rows = torch.zeros(self.interval, len(self.names) + 2, device=self._device)
        row = torch.stack((out.total, *(term.mean() for term in out.terms.values())))
        self._rows[len(self._steps), :-1] = row.detach()
        self._rows[len(self._steps), -1] = images
        self._steps.append(step)
        return self.flush() if len(self._steps) == self.interval else None

    def flush(self) -> tuple[int, str] | None:
        """Read the block: the first step with a value that is not finite, and its name; or None."""
        if not self._steps:
            return None
        steps, self._steps = self._steps, []
        rows = self._rows[: len(steps)].double().cpu()
        finite = rows.isfinite()
        if not finite.all():
            first = int((~finite.all(1)).nonzero()[0])
            names = ("loss", *self.names)
            # The terms before their sum.
            column = next(c for c in (*range(1, len(names)), 0) if not finite[first, c])
            return steps[first], f"{names[column]} is {rows[first, column].item()}"
        rows[:, :-1] *= rows[:, -1:]
        self.total = self.total + rows.sum(0)
        self.last = mean_of(self.names, rows.sum(0), self._objective)
        return None


def mean_of(names: tuple[str, ...], total: Tensor, objective: Objective) -> Losses:
    """Means from ``total``: sums of the loss and of the terms ``names``, and number of images."""
    loss, *terms, images = total.tolist()
    count = max(images, 1.0)
    means = {name: value / count for name, value in zip(names, terms, strict=True)}
    return Losses(loss=loss / count, **means, **objective.summary(means))


def largest_weight(model: nn.Module) -> float:
    """The largest magnitude of a parameter; NaN if one is NaN."""
    with torch.no_grad():
        return torch.stack([p.abs().max().float() for p in model.parameters()]).max().item()


def likely_cause(model: nn.Module, config: TrainConfig, term: str) -> str:
    """A sentence on why ``term`` is not finite, and what to do."""
    weight, name = largest_weight(model), term.partition(" ")[0]
    if not math.isfinite(weight) or weight > _DIVERGED:
        return (
            f"the weights have diverged (largest magnitude {weight:.3g}): the learning rate is "
            f"probably too high; try a smaller --lr than {config.lr:g}, or --grad-clip 1"
        )
    if config.amp == "fp16":
        return "a value probably exceeds float16's 65504; try --amp bf16 or --amp off"
    return (
        f"the weights are finite (largest magnitude {weight:.3g}), {name} is not; try a smaller "
        "--lr, or run a step in vk.detect_nonfinite() to see the first op that is not"
    )
