"""Named real shapes, inputs, and what eager users write: read by the tests and the benchmarks."""

from vaekernels.cases import bernoulli_nll, gaussian_kl, gaussian_nll, laplace_nll, rsample_kl
from vaekernels.cases._case import LATENT_SHAPES, ODD_SHAPES, OpCases, error, tolerance

ALL: dict[str, OpCases] = {
    module.CASES.op: module.CASES
    for module in (rsample_kl, gaussian_kl, bernoulli_nll, gaussian_nll, laplace_nll)
}

__all__ = ["ALL", "LATENT_SHAPES", "ODD_SHAPES", "OpCases", "error", "tolerance"]
