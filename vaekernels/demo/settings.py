"""The settings of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from vaekernels.models import VAEConfig
from vaekernels.training import ImageData, TrainConfig


@dataclass(frozen=True)
class Settings:
    """Settings of training and comparison.

    Attributes:
        epochs: passes over the training digits.
        seed: of weights, order and noise.
        device: "auto" (CUDA if there is one), "cpu", "cuda" ...
        hidden: channels of the levels of the convolutional backbone.
        latent_dim: size of the latent vector.
        batch: images in a training step.
        encode_batch: batch size of the encoding run.
        lr: learning rate of Adam.
        heldout: fraction of the digits that is held out.
        parity_steps: training steps over which both sides must compute the same losses.
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
        self.train_config()  # validates its arguments

    def model_config(self, data: ImageData) -> VAEConfig:
        """The configuration of a model of ``data``."""
        return VAEConfig(
            image_shape=data.shape,
            latent_dim=self.latent_dim,
            hidden=self.hidden,
            likelihood="bernoulli",
        )

    def train_config(self) -> TrainConfig:
        """The configuration of the training."""
        return TrainConfig(
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            heldout=self.heldout,
            seed=self.seed,
            device=self.device,
        )
