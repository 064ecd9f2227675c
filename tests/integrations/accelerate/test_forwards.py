"""No forward ends the process: hundreds of one-line forwards, each as it was."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("part", "parts", "size"),
    [
        pytest.param(0, 1, 250, id="some"),
        *(pytest.param(i, 4, 100000, marks=pytest.mark.slow, id=f"all-{i}") for i in range(4)),
    ],
)
def test_forwards_give_what_they_gave(part: int, parts: int, size: int) -> None:
    command = [
        "-m",
        "tests.integrations.accelerate.forwards_process",
        *map(str, (part, parts, size)),
    ]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
