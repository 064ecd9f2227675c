"""Finds one row and dies as a segmentation fault does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    yield {"name": "before"}
    print("illegal memory access", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    yield {"name": "never"}
