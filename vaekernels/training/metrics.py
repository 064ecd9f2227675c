"""Running means of the losses, and the stop at the first one that is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vaekernels.models.vae.outputs import VAEOutput
from vaekernels.training.config import TrainConfig

# On a GPU a look at the losses waits for all queued work: look once in so many steps.
_CUDA_INTERVAL = 50
# Trained weights of a VAE stay far below; Adam with a rate too high passes it in a few steps.
_DIVERGED = 1e4
# Columns of a row: the terms before their sum, for the message on one that is not finite.
_TERMS = {1: "nll", 2: "kl", 0: "loss"}


class NonFiniteLossError(FloatingPointError):
    """Training stopped at a loss that is NaN or infinite; the message says where and why."""


@dataclass(frozen=True)
class Losses:
    """Means per image, in nats."""

    loss: float
    nll: float
    kl: float

    @property
    def elbo(self) -> float:
        """The evidence lower bound, whatever beta was trained with."""
        return -(self.nll + self.kl)

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """For the history."""
        values = {"loss": self.loss, "nll": self.nll, "kl": self.kl, "elbo": self.elbo}
        return {prefix + name: value for name, value in values.items()}


class Meter:
    """Collects the losses of steps on their device and brings them over a block at a time."""

    def __init__(self, device: torch.device) -> None:
        self.interval = _CUDA_INTERVAL if device.type == "cuda" else 1
        self.total = torch.zeros(4, dtype=torch.float64)  # loss, nll, kl, images
        self.last: Losses | None = None
        self._rows = torch.zeros(self.interval, 4, device=device)
        self._count = 0

    def add(self, out: VAEOutput, images: int) -> tuple[int, str] | None:
        """Take in a step; what :meth:`flush` says when a block is full, else None."""
        row = torch.stack((out.loss, out.nll.mean(), out.kl.mean()))
        self._rows[self._count, :3] = row.detach()
        self._rows[self._count, 3] = images
        self._count += 1
        return self.flush() if self._count == self.interval else None

    def flush(self) -> tuple[int, str] | None:
        """Look at the block: how many steps ago a loss was not finite, and which; None: all are."""
        if self._count == 0:
            return None
        rows, self._count = self._rows[: self._count].double().cpu(), 0
        finite = rows.isfinite()
        if not finite.all():
            first = int((~finite.all(1)).nonzero()[0])
            column = next(column for column in _TERMS if not finite[first, column])
            return len(rows) - 1 - first, f"{_TERMS[column]} is {rows[first, column].item()}"
        rows[:, :3] *= rows[:, 3:]
        self.total += rows.sum(0)
        self.last = mean_of(rows.sum(0))
        return None


def mean_of(total: Tensor) -> Losses:
    """Means from sums of loss, nll, kl and images."""
    loss, nll, kl, images = total.tolist()
    count = max(images, 1.0)
    return Losses(loss / count, nll / count, kl / count)


def largest_weight(model: nn.Module) -> float:
    """The largest magnitude of a parameter; NaN if one is NaN."""
    with torch.no_grad():
        return torch.stack([p.abs().max().float() for p in model.parameters()]).max().item()


def likely_cause(model: nn.Module, config: TrainConfig, term: str) -> str:
    """A sentence on why ``term`` is not finite, and what to do."""
    weight = largest_weight(model)
    if not math.isfinite(weight) or weight > _DIVERGED:
        return (
            f"the weights have diverged (largest magnitude {weight:.3g}): the learning rate is "
            f"probably too high; try a smaller --lr than {config.lr:g}, or --grad-clip 1"
        )
    if config.amp == "fp16":
        return "a value probably exceeds float16's 65504; try --amp bf16 or --amp off"
    where = "encoder" if term.startswith("kl") else "decoder"
    return (
        f"the weights are finite (largest magnitude {weight:.3g}), the {where} makes it; try a "
        "smaller --lr, or run a step in vk.detect_nonfinite() to see the first op that does"
    )
