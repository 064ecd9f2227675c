"""vaekernels: fast, exact kernels for variational autoencoders, and a thin VAE API.

>>> import vaekernels as vk
>>> z, kl = vk.rsample_kl(mean, logvar)

Importing the package touches neither CUDA, nor Triton, nor the compiled extension.
"""

from __future__ import annotations

from vaekernels import models, nn, ops
from vaekernels.backends.registry import BACKENDS, BackendError, use_backend
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.integrations.accelerate import Handle, Report, accelerate
from vaekernels.ops import *  # noqa: F403  # every op is exported by its name
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
    "Report",
    "accelerate",
    "detect_nonfinite",
    "explain",
    "graph",
    "models",
    "nn",
    "use_backend",
]
__all__ += ops.__all__
