from __future__ import annotations

from collections.abc import Iterator

import pytest

import vaekernels as vk


@pytest.fixture
def reference() -> Iterator[None]:
    """Ops run in plain PyTorch: what is tested is the bench."""
    with vk.use_backend("reference"):
        yield
