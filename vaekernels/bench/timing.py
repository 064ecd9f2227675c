"""Interleaved timing: every round runs all contenders, so that drift hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    min_rounds: int = 7,
    max_rounds: int = 300,
) -> dict[str, float]:
    """Median seconds of one call of each contender.

    Args:
        contenders: name -> function without arguments.
        seconds: how long to measure, all contenders together.
        min_rounds: rounds even where that takes longer.
        max_rounds: rounds at most.

    Returns:
        name -> median seconds. Short calls are repeated inside a round, so that the clock's
        resolution does not matter.
    """
    repeats = {name: _repeats(call) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    deadline = time.perf_counter() + seconds
    for rounds in range(max_rounds):
        if rounds >= min_rounds and time.perf_counter() > deadline:
            break
        for name, call in contenders.items():
            times[name].append(_time(call, repeats[name]))
    return {name: statistics.median(series) for name, series in times.items()}


def _repeats(call: Callable[[], object]) -> int:
    began = time.perf_counter()
    for _ in range(3):
        call()
        if time.perf_counter() - began > 1.0:  # long calls are warm after one
            return 1
    once = max(_time(call, 1), 1e-7)
    return max(1, min(1000, round(1e-3 / once)))


def _time(call: Callable[[], object], repeats: int) -> float:
    synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return (time.perf_counter() - start) / repeats


def synchronize() -> None:
    """Wait for all work queued on a GPU, if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
