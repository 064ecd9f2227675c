"""The same VAE as a PyTorch user writes it: the other side of every comparison.

Without ``eps`` the noise is torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaekernels.bench.eager_vae import EagerVAE, loss, reconstruction_loss, reparameterise, twin
from vaekernels.training import ImageData

__all__ = ["EagerVAE", "Loss", "encode", "loss", "reconstruction_loss", "reparameterise", "twin"]

# Model, images and noise (None: torch's own) to the loss.
Loss = Callable[[EagerVAE, Tensor, Tensor | None], Tensor]


@torch.no_grad()
def encode(model: EagerVAE, data: ImageData, batch: int, eps: Tensor | None = None) -> Tensor:
    """A sampled latent of every image: (N, L), on the CPU."""
    device = next(model.parameters()).device
    latents: list[Tensor] = []
    done = 0
    for images, _ in data.batches(batch, device):
        mean, logvar = model.encoder(images).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        noise = torch.randn_like(std) if eps is None else eps[done : done + len(images)]
        latents.append((mean + noise * std).cpu())
        done += len(images)
    return torch.cat(latents)
