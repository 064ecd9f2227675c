"""Which values are kept, and how what lies between them is cut: the fastest way that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vaekernels.models.tiling.memory import MemoryModel, format_bytes
from vaekernels.models.tiling.tiles import Grid, needed, sizes_after, spans_of
from vaekernels.nn.steps import Step

# In multiplications of a convolution: a number that is normalised, or counted in the statistics;
# the call of a step.
_NORMALISE, _COUNT, _CALL = 500, 250, 1_000_000
_SMALLEST_TILE = 8
_SMALLEST_CHUNK = 64


class Cut(NamedTuple):
    """The parts of an image that are computed at once.

    Attributes:
        grid: of tiles; (1, 1): whole.
        chunk: pixels of a chunk, for attention; 0 elsewhere.
    """

    grid: Grid
    chunk: int = 0


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
    """How a network runs on an image of one size within a memory bound.

    Attributes:
        segments: in their order.
        whole: everything runs at once, and the kernels keep what they keep between calls.
        memory: estimate of the most bytes that are held beyond the model and its input:
            activations, the result, temporaries, transformed filters, scratch and freed results
            that are kept.
        work: how often more is computed than without a bound: 1.0 where nothing is done twice.
    """

    segments: tuple[Segment, ...]
    whole: bool
    memory: int
    work: float

    def __str__(self) -> str:
        cuts = []
        for segment in self.segments:
            (rows, columns), chunk = segment.cut
            if not self.whole and (chunk or rows * columns > 1):
                parts = f"chunks of {chunk} pixels" if chunk else f"{rows * columns} tiles"
                cuts.append(f"\n  steps {segment.first + 1} to {segment.last} in {parts}")
        return f"{format_bytes(self.memory)}, {self.work:.2f} times the work" + "".join(cuts)


def make_plan(
    steps: Sequence[Step],
    channels: int,
    height: int,
    width: int,
    model: MemoryModel,
    max_memory: int,
) -> Plan:
    """The fastest plan within ``max_memory``.

    Every pair of values is a segment, if some cut of it fits; the plan is the shortest path
    through these, by work.

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
    planner = _Planner(steps, channels, height, width, model)
    whole = planner.whole()
    if whole.memory <= max_memory:
        return whole
    path = planner.shortest(max_memory)
    if path is None:
        least = planner.least()
        raise ValueError(
            f"max_memory must be at least {format_bytes(least)} for an input of "
            f"{height} x {width} pixels and a batch of {model.batch}; "
            f"got {format_bytes(max_memory)}"
        )
    work = sum(segment.work for segment in path) / sum(s.work for s in whole.segments)
    return Plan(tuple(path), False, max(segment.memory for segment in path), max(work, 1.0))


class _Planner:
    """Costs of every segment of a network on an image."""

    def __init__(
        self, steps: Sequence[Step], channels: int, height: int, width: int, model: MemoryModel
    ) -> None:
        self.steps = steps
        self.model = model
        self.heights = sizes_after(steps, height)
        self.widths = sizes_after(steps, width)
        self.channels = [channels, *(step.channels for step in steps)]
        self.skips = [0, *(step.skip_channels for step in steps)]
        self._known_areas: dict[tuple[int, Grid], list[tuple[int, int]]] = {}

    def whole(self) -> Plan:
        """No step is cut."""
        indices = range(len(self.steps))
        cuts = [
            Cut(Grid(1, 1), 0 if s.attend is None else self._pixels(k))
            for k, s in enumerate(self.steps)
        ]
        segments = tuple(
            Segment(k, k + 1, cut, self._memory(k, k + 1, cut), self._work(k, k + 1, cut))
            for k, cut in enumerate(cuts)
        )
        held = max(self._states(k, k + 1) + self._beside(k) for k in indices)
        results = [self._bytes(k + 1, self._pixels(k + 1)) for k in indices]
        memory = held + self.model.filters(self.steps) + self.model.scratch(self.steps)
        return Plan(segments, True, memory + self.model.pooled(results), 1.0)

    def shortest(self, max_memory: int) -> list[Segment] | None:
        """The path of least work whose segments all fit; None: there is none."""
        paths: list[tuple[int, list[Segment]] | None] = [(0, [])]
        for end in range(1, len(self.steps) + 1):
            best = None
            for begin in range(end - 1, -1, -1):
                before = paths[begin]
                segment = None if before is None else self._fitting(begin, end, max_memory)
                if before is None or segment is None:
                    continue
                if best is None or before[0] + segment.work < best[0]:
                    best = before[0] + segment.work, [*before[1], segment]
            paths.append(best)
        return None if paths[-1] is None else paths[-1][1]

    def least(self) -> int:
        """The smallest bound that has a plan."""
        memory = [0]
        for end in range(1, len(self.steps) + 1):
            memory.append(
                min(
                    max(memory[begin], min(self._memory(begin, end, cut) for cut in cuts))
                    for begin in range(end)
                    if (cuts := list(self._cuts(begin, end)))
                )
            )
        return memory[-1]

    def _fitting(self, begin: int, end: int, max_memory: int) -> Segment | None:
        """The segment in as few parts as fit."""
        if self._states(begin, end) > max_memory and self.steps[begin].attend is None:
            return None
        for cut in self._cuts(begin, end):
            memory = self._memory(begin, end, cut)
            if memory <= max_memory:
                return Segment(begin, end, cut, memory, self._work(begin, end, cut))
        return None

    def _cuts(self, begin: int, end: int) -> Iterator[Cut]:
        """Ever finer ones; none where attention lies on the way with other steps."""
        if any(step.attend for step in self.steps[begin:end]):
            if end - begin == 1:
                chunk = pixels = self._pixels(begin)
                while chunk >= min(_SMALLEST_CHUNK, pixels):
                    yield Cut(Grid(1, 1), chunk)
                    chunk = (chunk + 1) // 2
            return
        height, width = self.heights[end], self.widths[end]
        grid = Grid(1, 1)
        if end - begin == 1:
            yield Cut(grid)
        while max(height // grid.rows, width // grid.columns) > _SMALLEST_TILE:
            grid = grid.finer(height, width)
            yield Cut(grid)

    def _memory(self, begin: int, end: int, cut: Cut) -> int:
        if cut.chunk:
            # The image, keys and values; of a chunk the input, the query, the result and copies.
            image, part = self._bytes(begin, self._pixels(begin)), self._bytes(begin, cut.chunk)
            images = 3 if self.model.fused else 4  # results of other kernels may need a copy
            return images * image + 5 * part + self._statistics(begin, cut.chunk)
        steps = self.steps[begin:end]
        held = self._states(begin, end) + self.model.filters(steps) + self.model.scratch(steps)
        if cut.grid == (1, 1):
            return held + self._beside(begin)
        return held + self._tiles(begin, end, cut.grid)

    def _work(self, begin: int, end: int, cut: Cut) -> int:
        step, pixels = self.steps[begin], self._pixels(end)
        if cut.chunk:
            return pixels * (step.work + 2 * step.channels * pixels)
        if cut.grid == (1, 1):
            return pixels * step.work + _CALL
        return self._tile_work(begin, end, cut.grid)

    def _states(self, begin: int, end: int) -> int:
        """Bytes of the two kept values; the input is the caller's."""
        held = self._bytes(end, self._pixels(end))
        # A skip that passes through is one tensor in both.
        if not self.passes_on(begin, end):
            held += self._skip_bytes(end, self._pixels(end))
        if begin > 0:
            pixels = self._pixels(begin)
            held += self._bytes(begin, pixels) + self._skip_bytes(begin, pixels)
        return held

    def passes_on(self, begin: int, end: int) -> bool:
        """Whether the skip of value ``end`` is part of value ``begin``."""
        return all(self.skips[begin + 1 : end + 1])

    def _beside(self, k: int) -> int:
        step = self.steps[k]
        return self.model.temporaries(step, self.channels[k], self._pixels(k + 1), tiled=False)

    def _areas(self, end: int, grid: Grid) -> list[tuple[int, int]]:
        """Of an inner tile of value ``end``, for each step before it: pixels read, and written."""
        if (end, grid) not in self._known_areas:
            steps = self.steps[:end]
            sides = []
            for sizes, count in ((self.heights, grid.rows), (self.widths, grid.columns)):
                spans = spans_of(sizes[end], count)
                reads = needed(steps, sizes[:end], spans[(len(spans) - 1) // 2])[:-1]
                sides.append([span.last - span.first for span in reads])
            self._known_areas[end, grid] = [
                (height * width, step.window.size(height) * step.window.size(width))
                for step, height, width in zip(steps, *sides, strict=True)
            ]
        return self._known_areas[end, grid]

    def _tiles(self, begin: int, end: int, grid: Grid) -> int:
        """What the tiles hold beside the kept values."""
        peak, results = 0, []
        areas = self._areas(end, grid)
        for k in range(begin, end):
            before, after = areas[k]
            step, result = self.steps[k], self._bytes(k + 1, after)
            # Parts of an image are copied: of a kept value, of a skip.
            held = self._bytes(k, before) + 2 * self._skip_bytes(k, before)
            if step.norm is not None:
                peak = max(peak, held + self._statistics(k, before))
            held += result + self.model.temporaries(step, self.channels[k], after, tiled=True)
            peak = max(peak, held)
            results.append(result)
        return peak + self.model.pooled(results)

    def _statistics(self, k: int, pixels: int) -> int:
        return self._bytes(k, pixels) + self.model.normalised(self.channels[k], pixels)

    def _tile_work(self, begin: int, end: int, grid: Grid) -> int:
        """All passes over all tiles: one for each normalisation on the way, and the last."""
        count = grid.rows * grid.columns
        work = 0
        for stop in range(begin, end + 1):
            norm = stop < end and self.steps[stop].norm is not None
            if norm:
                work += self._pixels(stop) * self.channels[stop] * _COUNT
            if stop == begin or not (norm or stop == end):
                continue
            areas = self._areas(stop, grid)
            for k in range(begin, stop):
                (before, after), step = areas[k], self.steps[k]
                work += count * (after * step.work + _CALL)
                if step.norm is not None:
                    work += count * before * self.channels[k] * _NORMALISE
        return work

    def _pixels(self, k: int) -> int:
        return self.heights[k] * self.widths[k]

    def _bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.channels[k], pixels)

    def _skip_bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.skips[k], pixels)
