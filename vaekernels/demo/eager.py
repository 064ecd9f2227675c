"""The same VAE as a PyTorch user writes it: the other side of every comparison.

The layers are the model's own, which are torch's; only what lies between and after them is
written out here, in the form of pytorch/examples. Without ``eps`` the noise is torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.models import VAE
from vaekernels.training import ImageData

# Model, images and noise (None: torch's own) to the loss.
Loss = Callable[[VAE, Tensor, Tensor | None], Tensor]


def reparameterise(moments: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Latents (B, L) from moments (B, 2L), and the KL to the standard normal of the batch."""
    mean, logvar = moments.chunk(2, dim=1)
    std = torch.exp(0.5 * logvar)
    if eps is None:
        eps = torch.randn_like(std)
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return mean + eps * std, kl


def reconstruction_loss(logits: Tensor, images: Tensor) -> Tensor:
    """Negative log-likelihood of a batch of Bernoulli pixels."""
    return F.binary_cross_entropy_with_logits(logits, images, reduction="sum")


def loss(model: VAE, images: Tensor, eps: Tensor | None = None) -> Tensor:
    """The negative ELBO per image."""
    z, kl = reparameterise(model.encoder(images), eps)
    return (reconstruction_loss(model.decoder(z), images) + kl) / len(images)


@torch.no_grad()
def encode(model: VAE, data: ImageData, batch: int, eps: Tensor | None = None) -> Tensor:
    """A sampled latent of every image: (N, L), on the CPU."""
    latents: list[Tensor] = []
    done = 0
    for images, _ in data.batches(batch, model.device):
        mean, logvar = model.encoder(images).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        noise = torch.randn_like(std) if eps is None else eps[done : done + len(images)]
        latents.append((mean + noise * std).cpu())
        done += len(images)
    return torch.cat(latents)
