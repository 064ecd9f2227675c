"""Check and measure this checkout on a GPU, in under nine minutes.

    python benchmarks/gpu_suite.py [--only PHASE[,PHASE]] [--budget SECONDS] [--out PATH] [--list]

Requires PyTorch and Triton; nothing is built, installed or downloaded. Every phase is a process
with a deadline; ``benchmarks/results/<gpu>/gpu_suite.json`` is rewritten after each, so that a
phase that hangs or crashes is recorded as such and does not affect the others. Exits with 1 where a
phase failed or a result was wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.gpu.command import main

    sys.exit(main())
