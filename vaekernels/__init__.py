"""vaekernels: fast, exact kernels for variational autoencoders, and a thin VAE API.

>>> import vaekernels as vk
>>> z, kl = vk.rsample_kl(mean, logvar)

Importing the package touches neither CUDA, nor Triton, nor the compiled extension.
"""

from __future__ import annotations

from vaekernels import models, nn
from vaekernels.backends.registry import BACKENDS, BackendError, use_backend
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.integrations.accelerate import Handle, Report, accelerate
from vaekernels.ops import (
    NormPrologue,
    bernoulli_nll,
    conv3x3,
    conv_transpose4x4,
    downsample_conv3x3,
    downsample_conv4x4,
    empty_cache,
    gaussian_kl,
    gaussian_nll,
    group_norm_silu,
    laplace_nll,
    randn,
    rsample_kl,
    set_conv_precision,
    upsample_conv3x3,
)
from vaekernels.runtime.cuda_graphs import Graph, graph
from vaekernels.runtime.detect_nonfinite import NonFiniteError, detect_nonfinite
from vaekernels.runtime.explain import Explanation, explain

__version__ = "0.1.0"

__all__ = [
    "BACKENDS",
    "BackendError",
    "DiagonalGaussian",
    "Explanation",
    "Graph",
    "Handle",
    "NonFiniteError",
    "NormPrologue",
    "Report",
    "accelerate",
    "bernoulli_nll",
    "conv3x3",
    "conv_transpose4x4",
    "detect_nonfinite",
    "downsample_conv3x3",
    "downsample_conv4x4",
    "empty_cache",
    "explain",
    "gaussian_kl",
    "gaussian_nll",
    "graph",
    "group_norm_silu",
    "laplace_nll",
    "models",
    "nn",
    "randn",
    "rsample_kl",
    "set_conv_precision",
    "upsample_conv3x3",
    "use_backend",
]
