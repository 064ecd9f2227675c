"""Small models to accelerate: diffusers' four autoencoders, and what users write."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.backends import extension

needs_kernels = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)


def _kl() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
    )


def _tiny() -> nn.Module:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )


def _vq() -> nn.Module:
    from diffusers import VQModel

    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        num_vq_embeddings=16,
        norm_num_groups=8,
    )


def _asymmetric() -> nn.Module:
    from diffusers import AsymmetricAutoencoderKL

    return AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        down_block_out_channels=(16, 32),
        up_block_types=("UpDecoderBlock2D",) * 2,
        up_block_out_channels=(16, 32),
        norm_num_groups=8,
    )


_DIFFUSERS = {
    "AutoencoderKL": _kl,
    "AutoencoderTiny": _tiny,
    "VQModel": _vq,
    "AsymmetricAutoencoderKL": _asymmetric,
}
DIFFUSERS = tuple(_DIFFUSERS)


def diffusers_model(name: str) -> nn.Module:
    """The model with random weights, in evaluation mode; the test is skipped without diffusers."""
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return _DIFFUSERS[name]().eval()


class ConvVAE(nn.Module):
    """A DCGAN-like autoencoder with a fully connected middle, which wants contiguous features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32, 3, 1, 1),
            nn.SiLU(),
        )
        self.to_latent = nn.Linear(32 * 16, 8)
        self.from_latent = nn.Linear(8, 32 * 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.ReLU(inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 16, 16) to the same."""
        features = self.encoder(x)
        latent = self.to_latent(features.view(features.size(0), -1))
        return self.decoder(self.from_latent(latent).view(-1, 32, 4, 4))


class ResBlock(nn.Module):
    """A residual block in the functional style of latent diffusion's first code."""

    def __init__(self, channels: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(4, channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        """In the shape of ``x``."""
        h = self.norm1(x)
        h = self.conv1(h * torch.sigmoid(h))
        h = self.dropout(F.silu(self.norm2(h)))
        return x + self.conv2(h)


class Updown(nn.Module):
    """Padding and upsampling by functions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 3, stride=2)
        self.down_symmetric = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.up = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Twice halved, twice doubled."""
        h = self.down_symmetric(self.down(F.pad(x, (0, 1, 0, 1))))
        h = self.up(F.interpolate(h, scale_factor=2, mode="nearest"))
        return F.leaky_relu(self.up(F.interpolate(h, scale_factor=2.0)), 0.1)


OWN = {"ConvVAE": ConvVAE, "ResBlock": ResBlock, "Updown": Updown}


def own_model(name: str) -> nn.Module:
    """One of ``OWN`` in evaluation mode, always with the same weights."""
    torch.manual_seed(0)
    return OWN[name]().eval()


def images(model: nn.Module, batch: int = 2) -> Tensor:
    """An input of ``model``."""
    channels = 16 if isinstance(model, (ResBlock, Updown)) else 3
    return torch.randn(batch, channels, 16, 16, generator=torch.Generator().manual_seed(1))


def model_of(name: str) -> nn.Module:
    """A model by its name."""
    return own_model(name) if name in OWN else diffusers_model(name)


def result(model: nn.Module, x: Tensor) -> Tensor:
    """What ``model`` makes of ``x``, out of what it wraps it in."""
    if type(model).__name__ == "AutoencoderTiny":  # its forward rounds the latents to bytes
        return model.decode(model.encode(x).latents).sample
    made = model(x)
    return made if isinstance(made, Tensor) else made.sample
