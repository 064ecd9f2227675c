"""How to train: every number that decides the weights, checked and written beside them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from vaekernels.utils.limits import LARGEST_FLOAT, LARGEST_SIZE

_KINDS = {int: "an integer", float: "a number", str: "a string"}
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
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = type(field.default)
            # An integer is a number too; a bool, for isinstance, is an integer.
            kinds = (float, int) if kind is float else (kind,)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(
                    f"{field.name} must be {_KINDS[kind]}; got {value!r} ({type(value).__name__})"
                )
        for name in ("epochs", "batch"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
            if value > LARGEST_SIZE:
                raise ValueError(f"{name} must be at most {LARGEST_SIZE}; got {value}")
        for name in ("beta", "kl_warmup_epochs", "free_bits", "grad_clip", "lr"):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (value == 0 and name == "lr"):
                sign = "positive" if name == "lr" else "not negative"
                raise ValueError(f"{name} must be finite and {sign}; got {value}")
            if value > LARGEST_FLOAT:
                raise ValueError(
                    f"{name} must be at most {LARGEST_FLOAT:.3g}, what float32 holds; got {value}"
                )
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
