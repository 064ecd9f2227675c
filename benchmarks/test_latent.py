"""The latent ops under pytest-benchmark: ``pytest benchmarks --benchmark-json=latent.json``.

The cases are those of the tests; a group holds eager and ours for one op, case and direction.
``vaekernels bench latent`` measures the same interleaved, which is what the README reports.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vaekernels.bench.latent import DIRECTIONS, call
from vaekernels.bench.op_inputs import LATENT

CASES = [
    pytest.param(op, case, id=f"{op}-{case}")
    for op, cases in LATENT.items()
    for case in cases.shapes
]


@pytest.mark.parametrize("contender", ("eager", "ours"))
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("op", "case"), CASES)
def test_latent(benchmark: Any, op: str, case: str, direction: str, contender: str) -> None:
    cases = LATENT[op]
    benchmark.group = f"{op} {case} {direction}"
    benchmark.extra_info["shape"] = cases.shapes[case]
    generator = torch.Generator().manual_seed(0)
    inputs = cases.inputs(cases.shapes[case], torch.float32, generator)
    function = cases.eager if contender == "eager" else cases.ours
    benchmark(call(function, cases, inputs, direction))
