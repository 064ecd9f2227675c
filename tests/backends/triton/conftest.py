"""Triton decides at import whether it interprets, so one process can do one thing only.

The kernels' tests carry the mark ``interpreter``: they run where ``TRITON_INTERPRET=1`` was set
at the start, and elsewhere once, all together, in a process of their own
(test_triton_interpreter.py). Ahead-of-time compilation always has its own process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import vaekernels as vk


@pytest.fixture(scope="session")
def interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def _needs_triton_and_the_right_process(request: pytest.FixtureRequest, interpreting: bool) -> None:
    # Not "triton": without the package this folder would be found under that name.
    pytest.importorskip("triton.language", reason="the package triton is not installed")
    if request.node.get_closest_marker("interpreter") and not interpreting:
        pytest.skip("runs in Triton's interpreter, started by test_triton_interpreter.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interpreter: runs Triton kernels on the CPU")


@pytest.fixture
def on_triton() -> Iterator[None]:
    with vk.use_backend("triton"), torch.no_grad():
        yield


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[Any]]:
    """Count the calls of a function."""

    def count(module: Any, name: str) -> list[Any]:
        calls: list[Any] = []
        original = getattr(module, name)

        def wrapped(*arguments: Any) -> Any:
            calls.append(arguments)
            return original(*arguments)

        monkeypatch.setattr(module, name, wrapped)
        return calls

    return count
