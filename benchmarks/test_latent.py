"""The latent ops under pytest-benchmark: ``pytest benchmarks --benchmark-json=latent.json``.

The rows are those of ``vaekernels bench latent``, whose sides are interleaved; the README reports
that one. A group has eager and ours of one row.
"""

from __future__ import annotations

from typing import Any

import pytest

from vaekernels.bench import latent
from vaekernels.bench.workloads import Workload


@pytest.mark.parametrize("side", ("eager", "ours"))
@pytest.mark.parametrize("work", latent.works(), ids=lambda work: work.name)
def test_latent(benchmark: Any, work: Workload, side: str) -> None:
    benchmark.group = work.name
    benchmark(work.makers(work.ours)[side](work.draw()))
