"""The autoencoder of latent diffusion in PyTorch's own layers.

For comparisons where diffusers is not installed. It has the state dict of
``vk.models.AutoencoderKL`` and of diffusers' class, and computes the results of the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.bench.eager_vae import reparameterise
from vaekernels.models import AutoencoderKL, AutoencoderKLConfig


class Resnet(nn.Module):
    """``ResnetBlock2D`` without a time embedding."""

    def __init__(self, incoming: int, outgoing: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, incoming, 1e-6)
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outgoing, 1e-6)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(incoming, outgoing, 1) if incoming != outgoing else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, 1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x.flatten(2)).transpose(1, 2)
        heads = (project(tokens).unsqueeze(1) for project in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(*heads).squeeze(1)
        return self.to_out[0](attended).transpose(1, 2).reshape(x.shape) + x


class Downsample(nn.Module):
    """Half the size; the image is padded below and to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one size, then what changes it."""

    def __init__(self, channels: Sequence[int], groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(*pair, groups) for pair in pairwise(channels))
        self.downsamplers = self.upsamplers = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = layer(x)
        return x


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(Resnet(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Images to moments."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = _levels(channels, config.layers_per_block, groups)
        for level, width in zip(self.down_blocks[:-1], channels, strict=False):
            level.downsamplers = nn.ModuleList([Downsample(width)])
        self.mid_block = Middle(channels[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], 1e-6)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to images."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = Middle(channels[0], groups, config.mid_block_add_attention)
        self.up_blocks = _levels(channels, config.layers_per_block + 1, groups)
        for level, width in zip(self.up_blocks[:-1], channels, strict=False):
            level.upsamplers = nn.ModuleList([Upsample(width)])
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], 1e-6)
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class EagerKL(nn.Module):
    """Encoder and decoder; :meth:`encode` returns moments."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        latents = config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv: nn.Module = nn.Identity()
        self.post_quant_conv: nn.Module = nn.Identity()
        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(latents, latents, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to moments (B, 2L, h, w)."""
        moments: Tensor = self.quant_conv(self.encoder(x))
        return moments

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, L, h, w) to images (B, C, H, W)."""
        image: Tensor = self.decoder(self.post_quant_conv(z))
        return image


def from_model(model: AutoencoderKL) -> EagerKL:
    """The same weights, copied, on the same device."""
    copy = EagerKL(model.config).to(model.device, model.dtype).train(model.training)
    copy.load_state_dict(model.state_dict())
    return copy


def loss(model: Any, images: Tensor, eps: Tensor | None = None) -> Tensor:
    """Squared error and 1e-6 times the KL, of a model with ``encode`` and ``decode``.

    Without ``eps`` the noise is torch's.
    """
    z, kl = reparameterise(model.encode(images), eps)
    return F.mse_loss(model.decode(z), images) + 1e-6 * kl / len(images)


def _levels(channels: Sequence[int], blocks: int, groups: int) -> nn.ModuleList:
    """A level for each number of ``channels``; the first does not change it."""
    return nn.ModuleList(
        Level((before, *blocks * [after]), groups)
        for before, after in pairwise((channels[0], *channels))
    )
