"""The thin VAE API: a configuration makes a model whose hot paths are the package's ops."""

from vaekernels.models.autoencoder.config import AutoencoderKLConfig, AutoencoderTinyConfig
from vaekernels.models.autoencoder.kl import AutoencoderKL
from vaekernels.models.autoencoder.ldm_keys import from_ldm, to_ldm
from vaekernels.models.autoencoder.taesd_keys import from_taesd, to_taesd
from vaekernels.models.autoencoder.tiny import AutoencoderTiny
from vaekernels.models.registry import from_pretrained
from vaekernels.models.vae.config import VAEConfig
from vaekernels.models.vae.outputs import DecoderOutput, EncoderOutput, TinyEncoderOutput, VAEOutput
from vaekernels.models.vae.vae import VAE
from vaekernels.tiling import Plan

__all__ = [
    "VAE",
    "AutoencoderKL",
    "AutoencoderKLConfig",
    "AutoencoderTiny",
    "AutoencoderTinyConfig",
    "DecoderOutput",
    "EncoderOutput",
    "Plan",
    "TinyEncoderOutput",
    "VAEConfig",
    "VAEOutput",
    "from_ldm",
    "from_pretrained",
    "from_taesd",
    "to_ldm",
    "to_taesd",
]
