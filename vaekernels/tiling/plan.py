"""The plan of least work within a memory bound: stored values and the tiles between them."""

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
    """The steps from one stored value to the next.

    Attributes:
        first: the stored value that is read: 0 is the input, k the result of step k.
        last: the stored value that is written.
        cut: the division of the image into tiles or chunks.
        memory: peak bytes.
        work: work in multiplications.
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
        segments: the segments in order.
        whole: whether no image is tiled and the kernels keep their buffers between calls.
        memory: estimate of the peak bytes beyond the model and its input: activations, the
            result, temporaries, transformed filters, scratch memory and pooled results.
        work: work relative to the untiled network; 1.0 if nothing is recomputed.
        images: number of images that run at once; the rest of the batch follows in turn.
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
    """The plan of least work within ``max_memory``.

    As many images run at once as fit without tiling. If a single image does not fit, images are
    tiled: every pair of values is a candidate segment, with as few tiles as fit, and the plan is
    the path of least work through these segments.

    Args:
        steps: the steps of the network.
        channels: number of channels of the input.
        height: height of the input.
        width: width of the input.
        model: the memory of single steps.
        max_memory: the bound in bytes.

    Raises:
        ValueError: no plan fits; the error names the smallest bound that has one.
    """
    costs = Costs(steps, channels, height, width, model)
    # Finding the smallest bound takes seconds to hours, depending on the number of pixels.
    if costs.result() > max(max_memory, _HUGE):
        raise ValueError(
            f"max_memory must be at least {format_bytes(costs.result())}, the result alone, for an "
            f"input of {height} x {width} pixels and a batch of {model.batch}; "
            f"got {format_bytes(max_memory)}"
        )
    at_once = [costs, *_smaller_batches(costs)]
    for some in at_once:
        if (memory := some.whole()) <= max_memory:
            return Plan(tuple(_untiled(some)), True, memory, 1.0, some.model.batch)
    # The whole batch needs less memory than single images if the results dominate.
    plans = [_tiled_plan(some, max_memory) for some in (at_once[-1], costs)]
    found = [plan for plan in plans if plan is not None]
    if not found:
        least = min(_smallest_bound(some) for some in (at_once[-1], costs))
        raise ValueError(
            f"max_memory must be at least {format_bytes(least)} for an input of "
            f"{height} x {width} pixels and a batch of {model.batch}; "
            f"got {format_bytes(max_memory)}"
        )
    return min(found, key=lambda plan: plan.work)


def _smaller_batches(costs: Costs) -> Iterator[Costs]:
    """Costs of a half of the batch at once, a quarter, ..., one image; all results are stored."""
    batch = costs.model.batch
    results = costs.result()
    at_once = batch
    while at_once > 1:
        at_once = (at_once + 1) // 2
        yield costs.for_batch(at_once, results)


def _untiled(costs: Costs) -> list[Segment]:
    """One segment per step, without tiles."""
    cuts = (next(_candidates(costs, k, k + 1)) for k in range(len(costs.steps)))
    return [_segment(costs, k, k + 1, cut) for k, cut in enumerate(cuts)]


def _tiled_plan(costs: Costs, max_memory: int) -> Plan | None:
    """The plan of least work with tiles, or None if none fits."""
    path = _cheapest_path(costs, max_memory)
    if path is None:
        return None
    work = sum(s.work for s in path) / sum(s.work for s in _untiled(costs))
    memory = max(s.memory for s in path)
    return Plan(tuple(path), False, memory, max(work, 1.0), costs.model.batch)


def _cheapest_path(costs: Costs, max_memory: int) -> list[Segment] | None:
    """The path of least work whose segments all fit, or None."""
    paths: list[tuple[int, list[Segment]] | None] = [(0, [])]
    for end in range(1, len(costs.steps) + 1):
        best = None
        for begin in range(end - 1, -1, -1):
            before = paths[begin]
            segment = None if before is None else _coarsest_that_fits(costs, begin, end, max_memory)
            if before is None or segment is None:
                continue
            if best is None or before[0] + segment.work < best[0]:
                best = before[0] + segment.work, [*before[1], segment]
        paths.append(best)
    return None if paths[-1] is None else paths[-1][1]


def _smallest_bound(costs: Costs) -> int:
    """The smallest memory bound that has a plan."""
    least = [0]
    for end in range(1, len(costs.steps) + 1):
        segments = ((k, cut) for k in range(end) for cut in _candidates(costs, k, end))
        least.append(min(max(least[k], costs.memory(k, end, cut)) for k, cut in segments))
    return least[-1]


def _coarsest_that_fits(costs: Costs, begin: int, end: int, max_memory: int) -> Segment | None:
    """The segment with as few tiles or chunks as fit, or None."""
    for cut in _candidates(costs, begin, end):
        if costs.memory(begin, end, cut) <= max_memory:
            return _segment(costs, begin, end, cut)
    return None


def _segment(costs: Costs, begin: int, end: int, cut: Cut) -> Segment:
    return Segment(begin, end, cut, costs.memory(begin, end, cut), costs.work(begin, end, cut))


def _candidates(costs: Costs, begin: int, end: int) -> Iterator[Cut]:
    """Increasingly fine divisions; none for attention together with other steps."""
    if any(step.attend for step in costs.steps[begin:end]):
        if end - begin == 1:
            yield from _chunk_candidates(costs.pixels(begin))
        return
    height, width = costs.heights[end], costs.widths[end]
    grid = Grid(1, 1)
    if end - begin == 1:
        yield Cut(grid)
    while max(height // grid.rows, width // grid.columns) > _SMALLEST_TILE:
        grid = grid.finer(height, width)
        yield Cut(grid)


def _chunk_candidates(pixels: int) -> Iterator[Cut]:
    """Chunks of all pixels, a half of them, a quarter, and so on."""
    yield Cut(Grid(1, 1), pixels)
    while pixels > _SMALLEST_CHUNK:
        pixels = (pixels + 1) // 2
        yield Cut(Grid(1, 1), pixels)
