"""A model's first call with empty caches; then all kernels of the other phases, in parallel.

The caches of compiled kernels are empty when the suite starts: this phase fills them.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import time
from collections.abc import Iterator

from benchmarks.gpu.phase import Context, Row

_PROCESSES = 8


def run(context: Context) -> Iterator[Row]:
    yield from _imports()
    yield from context.each(
        [first_call], lambda _: "first call", lambda call, _: call(context), start=5.0
    )
    yield from context.each(
        [compile_kernels], lambda _: "all kernels", lambda call, _: call(context), start=5.0
    )


def _imports() -> Iterator[Row]:
    for package in ("torch", "vaekernels"):
        began = time.perf_counter()
        importlib.import_module(package)
        yield {"name": f"import {package}", "seconds": time.perf_counter() - began}


def first_call(context: Context) -> Row:
    """Seconds of decoding one image, with all loading, choices and compilation."""
    import torch

    from benchmarks.gpu import autoencoder

    torch.backends.cudnn.benchmark = False  # the default
    torch.zeros(1, device=context.device)  # initialise the device
    part = autoencoder.decode(32 if context.tiny else 512, 1)
    model = autoencoder.model(context)
    x = autoencoder.example(part, model)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.no_grad():
            float(part.ours(model)(x).sum())  # synchronises
        times.append(time.perf_counter() - began)
    return {"seconds": times[0], "later_s": min(times[1:]), "what": part.name}


def compile_kernels(context: Context) -> Row:
    """Every op, backend and dtype once, in several processes that share one cache."""
    from benchmarks.gpu import exercise

    cases = [one for one in exercise.cases_of(context.device) if isinstance(one, exercise.Case)]
    names = [case.name for case in cases if case.backend == "triton"]
    processes = min(_PROCESSES, os.cpu_count() or 1, max(1, len(names)))
    began = time.perf_counter()
    failed: list[str] = []
    if names:
        pool = concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=multiprocessing.get_context("spawn")
        )
        with pool:
            parts = [names[index::processes] for index in range(processes)]
            devices = [context.device] * processes
            for errors in pool.map(exercise.compile_all, parts, devices):
                failed += errors
    return {
        "seconds": time.perf_counter() - began,
        "cases": len(names),
        "processes": processes,
        "errors": failed,
    }
