"""Times on the device: events, graph replay, buffers that the caches do not hold.

Every round runs all contenders, so that clocks and temperature hit them alike; medians.
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
_WARM = 3  # calls before a capture: libraries choose algorithms, Triton compiles
_ROUND = 2e-3  # seconds of one contender's part of a round, at least
_MOST_SETS = 32


@dataclass(frozen=True)
class Contender:
    """Something to time: ``run`` makes ``calls`` calls of what is measured."""

    run: Call
    calls: int = 1


@dataclass(frozen=True)
class Timing:
    """Of one call.

    Attributes:
        ms: the median of the rounds, in milliseconds.
        spread: between the first and the ninth tenth of the rounds, over the median; what differs
            by less is equal.
    """

    ms: float
    spread: float


def plain(call: Call) -> Contender:
    """``call`` as it is, with what it costs to launch it."""
    return Contender(call)


def replayed(make: Callable[[Any], Call], sets: Sequence[Any], device: str) -> Contender:
    """The calls that ``make`` gives for each of ``sets``, as one graph where there is a GPU.

    Results of all calls are alive together, so that they lie in different memory as the inputs do.
    """
    if device != "cuda":
        calls = [make(inputs) for inputs in sets]
        return Contender(lambda: [call() for call in calls], len(calls))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # On the stream of the capture: a backward runs on that of its forward.
        calls = [make(inputs) for inputs in sets]
        for call in (*[calls[0]] * _WARM, *calls[1:]):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = [call() for call in calls]
    return Contender(_Replay(graph, (calls, results)), len(calls))


def rotated(inputs: Mapping[str, Tensor], device: str) -> list[dict[str, Tensor]]:
    """Copies of ``inputs``, so many that together they are four times the size of the L2 cache."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in inputs.values())
    sets = math.ceil(4 * _l2_bytes(device) / max(1, size))
    return [
        {name: tensor.clone() for name, tensor in inputs.items()}
        for _ in range(max(1, min(_MOST_SETS, sets)))
    ]


def timings(
    contenders: Mapping[str, Contender], *, seconds: float, least_rounds: int = 5
) -> dict[str, Timing]:
    """Time the contenders in turns.

    Args:
        contenders: name -> what to time.
        seconds: of measuring, all contenders together.
        least_rounds: rounds even where that takes longer.
    """
    measure = _events if torch.cuda.is_initialized() else _clock
    repeats = {}
    for name, contender in contenders.items():
        contender.run()
        once = measure(contender.run, 1)
        repeats[name] = max(1, min(1000, round(_ROUND / max(once, 1e-7))))
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.monotonic() + seconds
    done = 0
    while done < least_rounds or (time.monotonic() < end and done < 1000):
        for name, contender in contenders.items():
            rounds[name].append(measure(contender.run, repeats[name]) / contender.calls)
        done += 1
    return {name: _timing(series) for name, series in rounds.items()}


def medians(found: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """The columns ``ms`` and ``spread`` of a row."""
    return {
        "ms": {name: timing.ms for name, timing in found.items()},
        "spread": {name: round(timing.spread, 4) for name, timing in found.items()},
    }


@dataclass(frozen=True)
class _Replay:
    """A graph, and what its memory belongs to."""

    graph: torch.cuda.CUDAGraph
    held: Any

    def __call__(self) -> None:
        self.graph.replay()


def _events(run: Call, repeats: int) -> float:
    """Seconds of one run, by events on the device."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def _clock(run: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _timing(series: Sequence[float]) -> Timing:
    median = statistics.median(series)
    tenths = statistics.quantiles(series, n=10, method="inclusive")
    return Timing(median * 1e3, (tenths[-1] - tenths[0]) / max(median, 1e-12))


def _l2_bytes(device: str) -> int:
    """On CPU a little, so that there is something to rotate."""
    if device != "cuda":
        return 2**10
    return torch.cuda.get_device_properties("cuda").L2_cache_size
