"""Ops against eager PyTorch in bfloat16: graph replay, buffers that the L2 cache does not hold."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch

from benchmarks.gpu import work, works
from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    # The CPU's kernels of convolutions are float32.
    dtype = torch.float32 if context.tiny else work.DTYPE
    torch.backends.cudnn.benchmark = True

    def measure(one: work.Work, seconds: float) -> Row:
        try:
            return work.measure(one, seconds, device=context.device, dtype=dtype)
        finally:
            gc.collect()  # graphs hold memory
            torch.cuda.empty_cache()

    yield from context.each(works.works(context.tiny), lambda one: one.name, measure, start=2.0)
