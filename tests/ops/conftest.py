"""What the tests of the ops share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops import convs
from vaekernels.backends import extension as _extension


@pytest.fixture(params=("baseline", "avx2", "avx512"))
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each that the processor has, in force."""
    convs.skip_if_refused("cpu")
    extension = _extension.load()
    if request.param not in extension.cpu_capabilities():
        pytest.skip(f"this processor lacks {request.param}")
    best = extension.cpu_capability()
    extension.set_cpu_capability(request.param)
    yield request.param
    extension.set_cpu_capability(best)
