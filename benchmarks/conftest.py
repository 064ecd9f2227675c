"""Adds the machine to every pytest-benchmark record."""

from __future__ import annotations

from typing import Any

import pytest

from vaekernels.runtime import cpu_info


@pytest.fixture(autouse=True)
def _machine(benchmark: Any) -> None:
    benchmark.extra_info.update(cpu_info.describe())
