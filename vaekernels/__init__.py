"""vaekernels: fast, exact kernels for variational autoencoders, and a thin VAE API.

>>> import vaekernels as vk
>>> z, kl = vk.rsample_kl(mean, logvar)

Importing the package touches neither CUDA, nor Triton, nor the compiled extension.
"""

from __future__ import annotations

from vaekernels import models
from vaekernels.distributions import DiagonalGaussian
from vaekernels.nonfinite import NonFiniteError, detect_nonfinite
from vaekernels.ops import (
    bernoulli_nll,
    gaussian_kl,
    gaussian_nll,
    group_norm_silu,
    laplace_nll,
    randn,
    rsample_kl,
)
from vaekernels.registry import BACKENDS, BackendError, use_backend

__version__ = "0.1.0"

__all__ = [
    "BACKENDS",
    "BackendError",
    "DiagonalGaussian",
    "NonFiniteError",
    "bernoulli_nll",
    "detect_nonfinite",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "models",
    "randn",
    "rsample_kl",
    "use_backend",
]
