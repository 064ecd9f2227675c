"""Which values are kept, and how what lies between them is cut: the fastest way that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vaekernels.nn.layer_chain import Step
from vaekernels.tiling.costs import Costs, Cut
from vaekernels.tiling.memory import MemoryModel, format_bytes
from vaekernels.tiling.tiles import Grid

_SMALLEST_TILE = 8
_SMALLEST_CHUNK = 64


_HUGE = 2**36  # bytes


@dataclass(frozen=True)
class Segment:
    """The way from one kept value to the next.

    Attributes:
        first: the kept value that is read: 0 is the input, k the result of step k.
        last: the kept value that is written.
        cut: how it is cut.
        memory: the most bytes that are held on the way.
        work: multiplications.
    """

    first: int
    last: int
    cut: Cut
    memory: int
    work: int


@dataclass(frozen=True)
class Plan:
    """How a network runs on images of one size within a memory bound.

    Attributes:
        segments: in their order.
        whole: no image is cut, and the kernels keep what they keep between calls.
        memory: estimate of the most bytes that are held beyond the model and its input:
            activations, the result, temporaries, transformed filters, scratch and freed results
            that are kept.
        work: how often more is computed than without a bound: 1.0 where nothing is done twice.
        images: how many of the batch run at once; the others follow in turn.
    """

    segments: tuple[Segment, ...]
    whole: bool
    memory: int
    work: float
    images: int

    def __str__(self) -> str:
        cuts = []
        for segment in self.segments:
            (rows, columns), chunk = segment.cut
            if not self.whole and (chunk or rows * columns > 1):
                parts = f"chunks of {chunk} pixels" if chunk else f"{rows * columns} tiles"
                cuts.append(f"\n  steps {segment.first + 1} to {segment.last} in {parts}")
        return (
            f"{format_bytes(self.memory)}, {self.work:.2f} times the work, "
            f"{self.images} image{'s' * (self.images != 1)} at once" + "".join(cuts)
        )


def make_plan(
    steps: Sequence[Step],
    channels: int,
    height: int,
    width: int,
    model: MemoryModel,
    max_memory: int,
) -> Plan:
    """The fastest plan within ``max_memory``.

    As many images run at once as need not be cut. Where one must be, one runs at a time: every pair
    of values is a segment, in as few parts as fit; the plan is the shortest path through these, by
    work.

    Args:
        steps: of the network.
        channels: of its input.
        height: of its input.
        width: of its input.
        model: what steps hold.
        max_memory: bytes.

    Raises:
        ValueError: nothing fits; the error names the least that does.
    """
    costs = Costs(steps, channels, height, width, model)
    # To find the least bound takes longer the more pixels there are: seconds, then hours.
    if costs.result() > max(max_memory, _HUGE):
        raise ValueError(
            f"max_memory must be at least {format_bytes(costs.result())}, the result alone, for an "
            f"input of {height} x {width} pixels and a batch of {model.batch}; "
            f"got {format_bytes(max_memory)}"
        )
    at_once = [costs, *_in_turn(costs)]
    for some in at_once:
        if (memory := some.whole()) <= max_memory:
            return Plan(tuple(_uncut(some)), True, memory, 1.0, some.model.batch)
    # All at once need less than one by one where the results are most of the memory.
    plans = [_cut_plan(some, max_memory) for some in (at_once[-1], costs)]
    found = [plan for plan in plans if plan is not None]
    if not found:
        least = min(_least(some) for some in (at_once[-1], costs))
        raise ValueError(
            f"max_memory must be at least {format_bytes(least)} for an input of "
            f"{height} x {width} pixels and a batch of {model.batch}; "
            f"got {format_bytes(max_memory)}"
        )
    return min(found, key=lambda plan: plan.work)


def _in_turn(costs: Costs) -> Iterator[Costs]:
    """Of half the images at once, of a quarter, and so on to one; all results are held."""
    batch = costs.model.batch
    results = costs.result()
    at_once = batch
    while at_once > 1:
        at_once = (at_once + 1) // 2
        yield costs.of(at_once, results)


def _uncut(costs: Costs) -> list[Segment]:
    """All steps one by one."""
    cuts = (next(_cuts(costs, k, k + 1)) for k in range(len(costs.steps)))
    return [_segment(costs, k, k + 1, cut) for k, cut in enumerate(cuts)]


def _cut_plan(costs: Costs, max_memory: int) -> Plan | None:
    """The fastest that cuts images; None: nothing fits."""
    path = _shortest(costs, max_memory)
    if path is None:
        return None
    work = sum(s.work for s in path) / sum(s.work for s in _uncut(costs))
    memory = max(s.memory for s in path)
    return Plan(tuple(path), False, memory, max(work, 1.0), costs.model.batch)


def _shortest(costs: Costs, max_memory: int) -> list[Segment] | None:
    """The path of least work whose segments all fit; None: there is none."""
    paths: list[tuple[int, list[Segment]] | None] = [(0, [])]
    for end in range(1, len(costs.steps) + 1):
        best = None
        for begin in range(end - 1, -1, -1):
            before = paths[begin]
            segment = None if before is None else _fitting(costs, begin, end, max_memory)
            if before is None or segment is None:
                continue
            if best is None or before[0] + segment.work < best[0]:
                best = before[0] + segment.work, [*before[1], segment]
        paths.append(best)
    return None if paths[-1] is None else paths[-1][1]


def _least(costs: Costs) -> int:
    """The smallest bound that has a plan."""
    least = [0]
    for end in range(1, len(costs.steps) + 1):
        segments = ((k, cut) for k in range(end) for cut in _cuts(costs, k, end))
        least.append(min(max(least[k], costs.memory(k, end, cut)) for k, cut in segments))
    return least[-1]


def _fitting(costs: Costs, begin: int, end: int, max_memory: int) -> Segment | None:
    """The segment in as few parts as fit."""
    for cut in _cuts(costs, begin, end):
        if costs.memory(begin, end, cut) <= max_memory:
            return _segment(costs, begin, end, cut)
    return None


def _segment(costs: Costs, begin: int, end: int, cut: Cut) -> Segment:
    return Segment(begin, end, cut, costs.memory(begin, end, cut), costs.work(begin, end, cut))


def _cuts(costs: Costs, begin: int, end: int) -> Iterator[Cut]:
    """Ever finer ones; none where attention lies on the way with other steps."""
    if any(step.attend for step in costs.steps[begin:end]):
        if end - begin == 1:
            yield from _chunks(costs.pixels(begin))
        return
    height, width = costs.heights[end], costs.widths[end]
    grid = Grid(1, 1)
    if end - begin == 1:
        yield Cut(grid)
    while max(height // grid.rows, width // grid.columns) > _SMALLEST_TILE:
        grid = grid.finer(height, width)
        yield Cut(grid)


def _chunks(pixels: int) -> Iterator[Cut]:
    """All pixels at once, half of them, a quarter."""
    yield Cut(Grid(1, 1), pixels)
    while pixels > _SMALLEST_CHUNK:
        pixels = (pixels + 1) // 2
        yield Cut(Grid(1, 1), pixels)
