"""Encoders and decoders: images to moments, latents to the likelihood's input.

An encoder maps (B, C, H, W) to moments (B, 2L): mean and log variance. A decoder maps (B, L)
to (B, C, H, W). Every layer but the last of each is followed by the activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.models.vae.config import VAEConfig
from vaekernels.nn import ConvTranspose4x4, DownsampleConv4x4

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
    "tanh": F.tanh,
}
# What a convolution does in its own pass; the others follow it.
_FUSED = ("relu", "silu", "leaky_relu")


def build_backbone(config: VAEConfig) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder of ``config``."""
    if config.backbone == "conv":
        return ConvEncoder(config), ConvDecoder(config)
    return MLPEncoder(config), MLPDecoder(config)


class ConvEncoder(nn.Module):
    """A 4x4 convolution with stride 2 per level, then one linear layer to the moments."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fused = config.activation if config.activation in _FUSED else None
        self.activation = None if fused else ACTIVATIONS[config.activation]
        channels = (config.image_shape[0], *config.hidden)
        self.convs = nn.ModuleList(
            DownsampleConv4x4(*pair, activation=fused) for pair in pairwise(channels)
        )
        self.moments = nn.Linear(math.prod(_smallest_shape(config)), 2 * config.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x) if self.activation is None else self.activation(conv(x))
        return self.moments(x.flatten(1))


class ConvDecoder(nn.Module):
    """One linear layer, then a 4x4 transposed convolution with stride 2 per level."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.fused = config.activation in _FUSED
        self.smallest_shape = _smallest_shape(config)
        self.input = nn.Linear(config.latent_dim, math.prod(self.smallest_shape))
        *channels, image = (*reversed(config.hidden), config.image_shape[0])
        fused = config.activation if self.fused else None
        self.convs = nn.ModuleList(
            ConvTranspose4x4(*pair, activation=fused) for pair in pairwise(channels)
        )
        self.convs.append(ConvTranspose4x4(channels[-1], image))

    def forward(self, z: Tensor) -> Tensor:
        # The layout of the convolutions: the activation is then kept once for both backwards.
        x = self.input(z).unflatten(1, self.smallest_shape)
        x = self.activation(x.contiguous(memory_format=torch.channels_last))
        *inner, last = self.convs
        for conv in inner:
            x = conv(x) if self.fused else self.activation(conv(x))
        return last(x)


class MLPEncoder(nn.Module):
    """Linear layers on the flattened image."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        widths = (math.prod(config.image_shape), *config.hidden)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.moments = nn.Linear(widths[-1], 2 * config.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.moments(x)


class MLPDecoder(nn.Module):
    """The mirror of :class:`MLPEncoder`."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.image_shape = config.image_shape
        widths = (config.latent_dim, *reversed(config.hidden))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.output = nn.Linear(widths[-1], math.prod(config.image_shape))

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.layers:
            z = self.activation(layer(z))
        return self.output(z).unflatten(1, self.image_shape)


def _smallest_shape(config: VAEConfig) -> tuple[int, int, int]:
    """(C, H, W) after the last level of the convolutional encoder."""
    _, height, width = config.image_shape
    factor = 2 ** len(config.hidden)
    return config.hidden[-1], height // factor, width // factor
