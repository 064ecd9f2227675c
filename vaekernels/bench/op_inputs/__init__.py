"""Named real shapes, inputs, and what eager users write: read by the tests and the benchmarks."""

from vaekernels.bench.op_inputs import (
    bernoulli_nll,
    conv3x3,
    conv_transpose4x4,
    downsample_conv3x3,
    downsample_conv4x4,
    gaussian_kl,
    gaussian_nll,
    group_norm_silu,
    laplace_nll,
    rsample_kl,
    upsample_conv3x3,
)
from vaekernels.bench.op_inputs._case import (
    LATENT_SHAPES,
    ODD_SHAPES,
    OpCases,
    error,
    summed_terms,
    tolerance,
)
from vaekernels.bench.op_inputs._conv import ConvShape
from vaekernels.bench.op_inputs._run import options, run

# Ops on rows: a shape is that of the first input.
LATENT: dict[str, OpCases] = {
    module.CASES.op: module.CASES
    for module in (rsample_kl, gaussian_kl, bernoulli_nll, gaussian_nll, laplace_nll)
}
# Convolutions: a shape is a ConvShape.
CONV: dict[str, OpCases] = {
    module.CASES.op: module.CASES
    for module in (
        conv3x3,
        upsample_conv3x3,
        downsample_conv3x3,
        downsample_conv4x4,
        conv_transpose4x4,
    )
}
# Normalisations: a shape is (N, C, H, W).
NORM: dict[str, OpCases] = {group_norm_silu.CASES.op: group_norm_silu.CASES}
ALL: dict[str, OpCases] = {**LATENT, **CONV, **NORM}

__all__ = [
    "ALL",
    "CONV",
    "LATENT",
    "LATENT_SHAPES",
    "NORM",
    "ODD_SHAPES",
    "ConvShape",
    "OpCases",
    "error",
    "options",
    "run",
    "summed_terms",
    "tolerance",
]
