"""What happens at which step: pure functions of the settings, so that a run can be resumed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekernels.training.config import TrainConfig

# Held-out images are measured with one noise in every epoch, one that training never uses.
EVALUATION_STEP = 2**32 - 1


def steps_per_epoch(config: TrainConfig, images: int) -> int:
    """Optimizer steps in an epoch; the last one may have a smaller batch."""
    return math.ceil(images / config.batch)


def kl_weight(config: TrainConfig, step: int, images: int) -> float:
    """The weight of the KL term at ``step`` (from 0), after a linear warm-up to beta."""
    warmup = config.kl_warmup_epochs * steps_per_epoch(config, images)
    return config.beta * min(1.0, step / warmup) if warmup else config.beta


def permutation(seed: int, epoch: int, images: int) -> Tensor:
    """The order of the images in ``epoch``, a function of the arguments alone."""
    # An odd multiplier keeps the seeds of neighbouring runs and epochs apart.
    mixed = (seed * 0x9E3779B97F4A7C15 + epoch) % 2**63
    return torch.randperm(images, generator=torch.Generator().manual_seed(mixed))
