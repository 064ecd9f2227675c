"""How to train: every number that decides the weights, checked and written beside them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Attributes:
        epochs: passes over the training images.
        batch: images per optimizer step, over all processes together.
        lr: learning rate of Adam.
        beta: weight of the KL term; 1 is the ELBO.
        kl_warmup_epochs: the weight of the KL term grows linearly from 0 over these.
        free_bits: nats of KL per latent dim that cost nothing.
        grad_clip: largest norm of the gradient; 0 does not clip.
        amp: "off", "bf16" or "fp16": the dtype of matrix products and convolutions.
        heldout: fraction held out where the data has no held-out images of its own.
        seed: decides initial weights, order of the images, and noise.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" ...
    """

    epochs: int = 10
    batch: int = 128
    lr: float = 1e-3
    beta: float = 1.0
    kl_warmup_epochs: float = 0.0
    free_bits: float = 0.0
    grad_clip: float = 0.0
    amp: str = "off"
    heldout: float = 0.1
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("beta", "kl_warmup_epochs", "free_bits", "grad_clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative; got {value}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be finite and positive; got {self.lr}")
        if not 0 < self.heldout < 1:
            raise ValueError(f"heldout must be between 0 and 1; got {self.heldout}")
        if self.amp not in AMP_DTYPES:
            raise ValueError(f"amp must be one of {', '.join(AMP_DTYPES)}; got {self.amp!r}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63); got {self.seed}")

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """The dtype of autocast, or None."""
        return AMP_DTYPES[self.amp]

    def to_dict(self) -> dict[str, Any]:
        """For ``train_config.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """From ``train_config.json``.

        Raises:
            ValueError: an unknown setting, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(unknown)}")
        return cls(**values)
