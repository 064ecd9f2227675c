"""The public ops: one function per file, named as its torch op and its kernels are."""

from vaekernels.ops.bernoulli_nll import bernoulli_nll
from vaekernels.ops.gaussian_kl import gaussian_kl
from vaekernels.ops.gaussian_nll import gaussian_nll
from vaekernels.ops.group_norm_silu import group_norm_silu
from vaekernels.ops.laplace_nll import laplace_nll
from vaekernels.ops.randn import randn
from vaekernels.ops.rsample_kl import rsample_kl

__all__ = [
    "bernoulli_nll",
    "gaussian_kl",
    "gaussian_nll",
    "group_norm_silu",
    "laplace_nll",
    "randn",
    "rsample_kl",
]
