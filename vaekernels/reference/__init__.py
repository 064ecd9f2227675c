"""Plain PyTorch: the specification of every op, its fallback and its test oracle."""

from vaekernels.reference.bernoulli_nll import bernoulli_nll
from vaekernels.reference.gaussian_kl import gaussian_kl
from vaekernels.reference.gaussian_nll import gaussian_nll
from vaekernels.reference.group_norm_silu import group_norm_silu
from vaekernels.reference.laplace_nll import laplace_nll
from vaekernels.reference.randn import randn
from vaekernels.reference.rsample_kl import rsample_kl

__all__ = [
    "bernoulli_nll",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "randn",
    "rsample_kl",
]
