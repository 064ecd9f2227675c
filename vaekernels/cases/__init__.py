"""Named real shapes, inputs, and what eager users write: read by the tests and the benchmarks."""

from vaekernels.cases import (
    bernoulli_nll,
    gaussian_kl,
    gaussian_nll,
    group_norm_silu,
    laplace_nll,
    rsample_kl,
)
from vaekernels.cases._case import LATENT_SHAPES, ODD_SHAPES, OpCases, error, tolerance

# Ops on rows: a shape is that of the first input.
LATENT: dict[str, OpCases] = {
    module.CASES.op: module.CASES
    for module in (rsample_kl, gaussian_kl, bernoulli_nll, gaussian_nll, laplace_nll)
}
# Normalisations: a shape is (N, C, H, W).
NORM: dict[str, OpCases] = {group_norm_silu.CASES.op: group_norm_silu.CASES}
ALL: dict[str, OpCases] = {**LATENT, **NORM}

__all__ = [
    "ALL",
    "LATENT",
    "LATENT_SHAPES",
    "NORM",
    "ODD_SHAPES",
    "OpCases",
    "error",
    "tolerance",
]
