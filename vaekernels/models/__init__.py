"""The thin VAE API: a configuration makes a model whose hot paths are the package's ops."""

from vaekernels.models.autoencoder_config import AutoencoderKLConfig, AutoencoderTinyConfig
from vaekernels.models.autoencoder_kl import AutoencoderKL
from vaekernels.models.autoencoder_tiny import AutoencoderTiny
from vaekernels.models.config import VAEConfig
from vaekernels.models.ldm_keys import from_ldm, to_ldm
from vaekernels.models.outputs import DecoderOutput, EncoderOutput, TinyEncoderOutput, VAEOutput
from vaekernels.models.taesd_keys import from_taesd, to_taesd
from vaekernels.models.tiling import Plan
from vaekernels.models.vae import VAE

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
    "from_taesd",
    "to_ldm",
    "to_taesd",
]
