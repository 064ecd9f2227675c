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


def learning_rate(config: TrainConfig, step: int, images: int) -> float:
    r"""The learning rate of the optimizer step ``step``, counted from 0.

    .. math::
        \eta_t = \eta\, \min\Big(1, \frac{t + 1}{W}\Big)\, f\Big(\frac{t - W}{T - W}\Big), \qquad
        f(p) = 1,\quad 1 - p \quad\text{or}\quad \tfrac12 (1 + \cos \pi p)

    with the steps W of the warm-up and T of the run; f is 1 during the warm-up.
    """
    steps = steps_per_epoch(config, images)
    warmup, total = config.lr_warmup_epochs * steps, config.epochs * steps
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / (total - warmup)
    if config.schedule == "linear":
        return config.lr * (1.0 - progress)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * progress))


def permutation(seed: int, epoch: int, images: int) -> Tensor:
    """The order of the images in ``epoch``, a function of the arguments alone."""
    # An odd multiplier keeps the seeds of neighbouring runs and epochs apart.
    mixed = (seed * 0x9E3779B97F4A7C15 + epoch) % 2**63
    return torch.randperm(images, generator=torch.Generator().manual_seed(mixed))
