"""Where the CUDA kernels run: on a card, or emulated; each says why not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.cuda.emulation import build
from tests.backends.cuda.emulation.ops import Emulation
from vaekernels.backends import extension


@pytest.fixture(autouse=True)
def _needs_the_cuda_backend(request: pytest.FixtureRequest) -> None:
    """For tests marked ``cuda``."""
    if request.node.get_closest_marker("cuda") is None:
        return
    reasons = extension.cuda_refusals()
    if reasons:
        pytest.skip("; ".join(reasons))


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    """The kernels on the CPU."""
    reasons = [*build.refusals(), *extension.refusals()]
    if reasons:
        pytest.skip("; ".join(reasons))
    return Emulation(build.library(tmp_path_factory.mktemp("emulation")))


@pytest.fixture
def emulated(emulation: Emulation) -> Iterator[Emulation]:
    """The same in place of the backend cuda."""
    with emulation.as_backend():
        yield emulation
