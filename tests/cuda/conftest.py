"""Tests marked ``cuda`` run where the CUDA backend does, and say why elsewhere."""

from __future__ import annotations

import pytest

from vaekernels import _extension


@pytest.fixture(autouse=True)
def _needs_the_cuda_backend(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("cuda") is None:
        return
    reasons = _extension.cuda_refusals()
    if reasons:
        pytest.skip("; ".join(reasons))
