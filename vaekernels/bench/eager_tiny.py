"""The tiny autoencoder of taesd in plain PyTorch: its names, its images in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 64


class Block(nn.Module):
    """Three convolutions and a sum; with ``pooled``, a normalised 1x1 branch before them."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        layers = [layer for _ in range(3) for layer in (_conv(_WIDTH, _WIDTH), nn.ReLU())]
        self.conv = nn.Sequential(*layers[:-1])
        wide = 4 * _WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, _WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Latents within plus and minus 3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def encoder(latents: int, pooled: bool) -> nn.Sequential:
    """The encoder: (N, 3, H, W) in [0, 1] to (N, latents, H / 8, W / 8)."""
    layers: list[nn.Module] = [_conv(3, _WIDTH), Block(False)]
    for level in range(3):
        layers.append(_conv(_WIDTH, _WIDTH, stride=2, bias=False))
        layers += [Block(pooled and level == 2) for _ in range(3)]
    return nn.Sequential(*layers, _conv(_WIDTH, latents))


def decoder(latents: int, pooled: bool) -> nn.Sequential:
    """The decoder: (N, latents, h, w) to (N, 3, 8h, 8w), about [0, 1]."""
    layers: list[nn.Module] = [Clamp(), _conv(latents, _WIDTH), nn.ReLU()]
    for level in range(3):
        layers += [Block(pooled and level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, Block(False), _conv(_WIDTH, 3))


def _conv(incoming: int, outgoing: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 3, padding=1, stride=stride, bias=bias)
