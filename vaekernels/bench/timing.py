"""Interleaved timing: every round runs all contenders, so that drift affects them alike.

Times are of CUDA events where a GPU is in use, else of the CPU's clock.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
_WARM_UP = (
    3  # calls before a measurement or a capture: libraries choose algorithms, Triton compiles
)
_ROUND = 2e-3  # seconds of one contender's part of a round, at least
_MAX_COPIES = 32


@dataclass(frozen=True)
class Timing:
    """Time of one call.

    Attributes:
        seconds: the median of the rounds.
        spread: difference between the 90th and the 10th percentile, relative to the median.
    """

    seconds: float
    spread: float


@dataclass(frozen=True)
class CallSequence:
    """Several calls that run together; the time of one is reported."""

    run: Call
    calls: int

    def __call__(self) -> None:
        self.run()


def timings(
    contenders: Mapping[str, Call], *, seconds: float, min_rounds: int = 7
) -> dict[str, Timing]:
    """Time contenders in turns.

    Args:
        contenders: name -> function without arguments. Short calls are repeated within a round, so
            that the resolution of the clock does not matter.
        seconds: how long to measure, all contenders together.
        min_rounds: number of rounds even where they take longer.

    Returns:
        name -> time of one call.
    """
    repeats = {name: _repeats(call) for name, call in contenders.items()}
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    deadline = time.perf_counter() + seconds
    done = 0
    while done < min_rounds or time.perf_counter() < deadline:
        for name, call in contenders.items():
            count = call.calls if isinstance(call, CallSequence) else 1
            rounds[name].append(_time(call, repeats[name]) / count)
        done += 1
    return {name: _summarize(series) for name, series in rounds.items()}


def median_seconds(
    contenders: Mapping[str, Call], *, seconds: float, min_rounds: int = 7
) -> dict[str, float]:
    """The medians of :func:`timings`."""
    found = timings(contenders, seconds=seconds, min_rounds=min_rounds)
    return {name: timing.seconds for name, timing in found.items()}


def columns(found: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """The columns ``ms`` and ``spread`` of a row of the GPU suite."""
    return {
        "ms": {name: timing.seconds * 1e3 for name, timing in found.items()},
        "spread": {name: round(timing.spread, 4) for name, timing in found.items()},
    }


def graph_replay(make: Callable[[Any], Call], sets: Sequence[Any], device: str) -> CallSequence:
    """The calls that ``make`` returns for each of ``sets``, as one CUDA graph on a GPU.

    The results of all calls are alive together, so that they lie in different memory, as the inputs
    do.
    """
    if device != "cuda":
        calls = [make(inputs) for inputs in sets]
        return CallSequence(lambda: [call() for call in calls], len(calls))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # On the stream of the capture: a backward runs on the stream of its forward.
        calls = [make(inputs) for inputs in sets]
        for call in (*[calls[0]] * _WARM_UP, *calls[1:]):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = [call() for call in calls]
    return CallSequence(_Replay(graph, (calls, results)), len(calls))


def copies_beyond_cache(inputs: Mapping[str, Tensor], device: str) -> list[dict[str, Tensor]]:
    """Copies of ``inputs``, enough to fill four times the L2 cache together."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in inputs.values())
    copies = math.ceil(4 * _l2_bytes(device) / max(1, size))
    return [
        {name: tensor.clone() for name, tensor in inputs.items()}
        for _ in range(max(1, min(_MAX_COPIES, copies)))
    ]


def synchronize() -> None:
    """Wait for all work queued on a GPU, if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class _Replay:
    """A graph, and the tensors whose memory it uses."""

    graph: torch.cuda.CUDAGraph
    held: Any

    def __call__(self) -> None:
        self.graph.replay()


def _repeats(call: Call) -> int:
    """Warm up, and return how many calls fill a round."""
    began = time.perf_counter()
    for _ in range(_WARM_UP):
        call()
        synchronize()
        if time.perf_counter() - began > 1.0:  # a long call is warm after one
            return 1
    return max(1, min(1000, round(_ROUND / max(_time(call, 1), 1e-7))))


def _time(call: Call, repeats: int) -> float:
    """Seconds of one call."""
    if torch.cuda.is_initialized():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def _summarize(series: Sequence[float]) -> Timing:
    median = statistics.median(series)
    tenths = statistics.quantiles(series, n=10, method="inclusive")
    return Timing(median, (tenths[-1] - tenths[0]) / max(median, 1e-12))


def _l2_bytes(device: str) -> int:
    """Size of the L2 cache; on CPU a little, so that there are copies to rotate."""
    if device != "cuda":
        return 2**10
    return torch.cuda.get_device_properties("cuda").L2_cache_size
