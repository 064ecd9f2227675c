"""Small autoencoders that the tests share, as diffusers' configurations."""

from __future__ import annotations

from typing import Any

import torch

from vaekernels.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    AutoencoderTiny,
    AutoencoderTinyConfig,
)

# What tells the families apart, with fewer channels than they have.
KL: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8},
    "sdxl": {"block_out_channels": (32, 64), "norm_num_groups": 16, "scaling_factor": 0.13025},
    "sd3": {
        "block_out_channels": (16, 32, 32, 32),
        "norm_num_groups": 4,
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "one_level": {"block_out_channels": (32,), "norm_num_groups": 16},
    "without_attention": {
        "block_out_channels": (16, 48),
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
        "in_channels": 1,
        "out_channels": 2,
        "latent_channels": 3,
    },
}
TINY: dict[str, dict[str, Any]] = {
    "taesd": {
        "encoder_block_out_channels": (16, 16, 16, 16),
        "decoder_block_out_channels": (16, 16, 16, 16),
    },
    "wide": {
        "encoder_block_out_channels": (24, 24),
        "decoder_block_out_channels": (32, 32, 32),
        "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 1, 1),
        "latent_channels": 16,
    },
}


def kl(name: str = "sd1", dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """With random weights, the normalisations' too."""
    return randomised(AutoencoderKL(AutoencoderKLConfig(**KL[name]))).to(dtype).eval()


def tiny(name: str = "taesd", **fields: Any) -> AutoencoderTiny:
    return randomised(AutoencoderTiny(AutoencoderTinyConfig(**TINY[name], **fields))).eval()


def randomised(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def images(channels: int, *size: int, batch: int = 2) -> torch.Tensor:
    """In [-1, 1]."""
    return torch.rand(batch, channels, *size) * 2 - 1
