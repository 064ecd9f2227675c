"""The plain variational autoencoder."""

from vaekernels.models.vae.config import VAEConfig
from vaekernels.models.vae.vae import VAE

__all__ = ["VAE", "VAEConfig"]
