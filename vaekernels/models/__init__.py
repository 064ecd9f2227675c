"""The thin VAE API: a configuration makes a model whose hot paths are the package's ops."""

from vaekernels.models.config import VAEConfig
from vaekernels.models.outputs import DecoderOutput, EncoderOutput, VAEOutput
from vaekernels.models.vae import VAE

__all__ = ["VAE", "DecoderOutput", "EncoderOutput", "VAEConfig", "VAEOutput"]
