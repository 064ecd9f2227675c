"""The same VAE with our ops, through the public API: what ``vaekernels train`` runs."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.models import VAE
from vaekernels.training import ImageData


def loss(model: VAE, images: Tensor, *, seed: int, step: int, sample_ids: Tensor) -> Tensor:
    """The negative ELBO per image."""
    return model(images, seed=seed, step=step, sample_ids=sample_ids).loss


@torch.no_grad()
def encode(model: VAE, data: ImageData, batch: int, *, seed: int) -> Tensor:
    """A sampled latent of every image: (N, L), on the CPU."""
    return torch.cat(
        [
            model.encode(images).latent_dist.sample(seed=seed, sample_ids=ids).cpu()
            for images, ids in data.batches(batch, model.device)
        ]
    )
