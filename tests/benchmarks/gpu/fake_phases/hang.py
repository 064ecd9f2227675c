"""Finds one row and hangs, and so does its child, whose id is in the row."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"name": "before", "child": child.pid}
    print("it hangs here", file=sys.stderr, flush=True)
    time.sleep(600)
