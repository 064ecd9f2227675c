"""Named shapes, inputs and eager counterparts of the ops, for the tests and the benchmarks."""

from vaekernels.bench.op_inputs import convolutions, group_norm_silu, latent
from vaekernels.bench.op_inputs._case import (
    LATENT_SHAPES,
    ODD_SHAPES,
    OpCases,
    error,
    options,
    run,
    summed_terms,
    tolerance,
)
from vaekernels.bench.op_inputs.convolutions import RESNET, ConvShape

# Ops on rows: a shape is that of the first input.
LATENT: dict[str, OpCases] = {cases.op: cases for cases in latent.CASES}
# Convolutions: a shape is a ConvShape.
CONV: dict[str, OpCases] = {cases.op: cases for cases in convolutions.CASES}
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
    "RESNET",
    "ConvShape",
    "OpCases",
    "error",
    "options",
    "run",
    "summed_terms",
    "tolerance",
]
