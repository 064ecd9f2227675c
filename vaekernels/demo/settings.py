"""Every number of the demonstration in one place."""

from __future__ import annotations

from dataclasses import dataclass

from vaekernels.models import VAEConfig
from vaekernels.training import ImageData, TrainConfig


@dataclass(frozen=True)
class Settings:
    """How long to train, and how thoroughly to compare.

    Attributes:
        epochs: passes over the training digits.
        seed: of weights, order and noise.
        device: "auto" (CUDA if there is one), "cpu", "cuda" ...
        hidden: channels of the levels of the convolutional backbone.
        latent_dim: size of the latent vector.
        batch: images in a training step.
        encode_batch: images at once in the encoding run.
        lr: learning rate of Adam.
        heldout: fraction of the digits that is never trained on.
        parity_steps: training steps over which both sides must give the same losses.
        seconds: of measuring for each row of the comparison.

    Raises:
        ValueError: a number is out of range.
    """

    epochs: int = 30
    seed: int = 0
    device: str = "auto"
    hidden: tuple[int, ...] = (32, 64)
    latent_dim: int = 16
    batch: int = 64
    encode_batch: int = 256
    lr: float = 2e-3
    heldout: float = 0.2
    parity_steps: int = 50
    seconds: float = 10.0

    def __post_init__(self) -> None:
        self.train_config()  # which checks what it takes

    def model_config(self, data: ImageData) -> VAEConfig:
        """The model for images such as ``data``."""
        return VAEConfig(
            image_shape=data.shape,
            latent_dim=self.latent_dim,
            hidden=self.hidden,
            likelihood="bernoulli",
        )

    def train_config(self) -> TrainConfig:
        """How it is trained."""
        return TrainConfig(
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            heldout=self.heldout,
            seed=self.seed,
            device=self.device,
        )
