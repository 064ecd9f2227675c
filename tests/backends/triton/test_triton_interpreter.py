"""Starts the kernels' tests in a process in which Triton interprets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK, SLOW = "not slow", "slow"


@pytest.mark.parametrize(
    ("module", "marks"),
    [
        ("test_triton_noise.py", QUICK),
        ("test_triton_latent.py", QUICK),
        ("test_triton_group_norm.py", QUICK),
        ("test_triton_convs.py", QUICK),
        ("test_triton_conv_engine.py", QUICK),
        ("test_triton_conv_choice.py", QUICK),
        ("test_triton_chain.py", QUICK),
        ("test_conv_autotune.py", QUICK),
        pytest.param("test_triton_convs.py", SLOW, marks=pytest.mark.slow),
        pytest.param("test_triton_chain.py", SLOW, marks=pytest.mark.slow),
    ],
)
def test_in_the_interpreter(module: str, marks: str, interpreting: bool) -> None:
    if interpreting:
        pytest.skip("this process interprets already: the tests ran by themselves")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [*command, "-m", marks, str(Path(__file__).with_name(module))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600 if marks == QUICK else 3600,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
    assert "skipped" not in result.stdout
