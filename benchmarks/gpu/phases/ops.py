"""Ops against eager PyTorch in bfloat16: graph replay, buffers larger than the L2 cache."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator

import torch

from benchmarks.gpu import works
from benchmarks.gpu.phase import Context, Row
from vaekernels.bench.workloads import Workload


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True

    def measure(work: Workload, seconds: float) -> Row:
        work = dataclasses.replace(work, device=context.device, dtype=context.dtype)
        try:
            return works.measure(work, seconds)
        finally:
            gc.collect()  # graphs hold memory
            torch.cuda.empty_cache()

    yield from context.each(works.works(context.tiny), lambda work: work.name, measure, start=2.0)
