"""A kind of model as a newcomer adds it: one file; its line in the registry is the test's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.models import DecoderOutput, TinyEncoderOutput
from vaekernels.models.config_base import Config
from vaekernels.models.pretrained import PretrainedModel
from vaekernels.objectives import Batch, LossTerms, Objective, ObjectiveConfig
from vaekernels.ops import randn


@dataclass(frozen=True)
class LinearConfig(Config):
    """One linear layer to the code and one back."""

    image_shape: tuple[int, int, int]
    latent_dim: int = 2
    noise: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", self._sizes("image_shape", self.image_shape))
        self._size("latent_dim", self.latent_dim)
        self._number("noise", self.noise)


class DenoisingLoss(Objective):
    """The squared error of the image from its noisy code, and the size of the code."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, model: Any, batch: Batch, step: int) -> LossTerms:
        z = model.encode(batch.x).latents
        noise = randn(
            z.shape,
            seed=self.seed,
            step=step,
            sample_ids=batch.ids,
            device=z.device,
            dtype=z.dtype,
        )
        decoded = model.decode(z + model.config.noise * noise).sample
        mse = (decoded - batch.x).square().flatten(1).sum(1)
        size = z.square().sum(1)
        return LossTerms((mse + 0.1 * size).mean(), {"mse": mse, "code": size})

    def settings(self, step: int) -> dict[str, float]:
        return {"progress": float(step)}


class LinearAutoencoder(PretrainedModel):
    """Encodes, decodes, has a loss, and a prior to sample from."""

    config: LinearConfig
    config_class = LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config)
        self.down = nn.Linear(math.prod(config.image_shape), config.latent_dim)
        self.up = nn.Linear(config.latent_dim, math.prod(config.image_shape))

    def encode(self, x: Tensor) -> TinyEncoderOutput:
        return TinyEncoderOutput(self.down(x.flatten(1)))

    def decode(self, z: Tensor) -> DecoderOutput:
        image = self.up(z).unflatten(1, self.config.image_shape)
        return DecoderOutput(image, image)

    def objective(self, settings: ObjectiveConfig, seed: int, steps_per_epoch: int) -> Objective:
        return DenoisingLoss(seed)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | Tensor | None = None) -> Tensor:
        return self.decode(randn((n, self.config.latent_dim), seed=seed, device=self.device)).sample

    @property
    def device(self) -> torch.device:
        return self.up.weight.device
