"""The convolutional VAE in PyTorch's own layers, in the form of pytorch/examples.

For comparisons of whole training steps. It has the state dict of ``vk.models.VAE``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.models import VAE, VAEConfig

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "tanh": F.tanh,
}


class Encoder(nn.Module):
    """4x4 convolutions with stride 2, then one linear layer to the moments."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        channels = (config.image_shape[0], *config.hidden)
        self.convs = nn.ModuleList(
            nn.Conv2d(*pair, kernel_size=4, stride=2, padding=1) for pair in pairwise(channels)
        )
        self.moments = nn.Linear(math.prod(_smallest(config)), 2 * config.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2L)."""
        for conv in self.convs:
            x = self.activation(conv(x))
        return self.moments(x.flatten(1))


class Decoder(nn.Module):
    """One linear layer, then 4x4 transposed convolutions with stride 2."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.smallest = _smallest(config)
        self.input = nn.Linear(config.latent_dim, math.prod(self.smallest))
        channels = (*reversed(config.hidden), config.image_shape[0])
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(*pair, kernel_size=4, stride=2, padding=1)
            for pair in pairwise(channels)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, L) to (B, C, H, W)."""
        x = self.input(z).unflatten(1, self.smallest)
        for conv in self.convs:
            x = conv(self.activation(x))
        return x


class EagerVAE(nn.Module):
    """Encoder and decoder of PyTorch's own layers.

    Args:
        config: with a convolutional backbone and a Bernoulli likelihood.

    Raises:
        ValueError: ``config`` has another backbone or likelihood.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        if (config.backbone, config.likelihood) != ("conv", "bernoulli"):
            raise ValueError(
                "EagerVAE: expected backbone conv and likelihood bernoulli; "
                f"got {config.backbone} and {config.likelihood}"
            )
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


def from_model(model: VAE) -> EagerVAE:
    """The same weights, copied, on the same device."""
    copy = EagerVAE(model.config).to(model.device, model.dtype)
    copy.load_state_dict(model.state_dict())
    return copy


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


def loss(model: EagerVAE, images: Tensor, eps: Tensor | None = None) -> Tensor:
    """The negative ELBO per image; without ``eps`` the noise is torch's."""
    z, kl = reparameterise(model.encoder(images), eps)
    return (reconstruction_loss(model.decoder(z), images) + kl) / len(images)


def _smallest(config: VAEConfig) -> tuple[int, int, int]:
    """(C, H, W) between encoder and decoder."""
    _, height, width = config.image_shape
    factor = 2 ** len(config.hidden)
    return config.hidden[-1], height // factor, width // factor
