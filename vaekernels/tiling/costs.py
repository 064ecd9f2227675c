"""What a segment costs: the way from one kept value to another, in memory and in work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from vaekernels.nn.layer_chain import Step
from vaekernels.tiling.memory import MemoryModel
from vaekernels.tiling.tiles import Grid, needed, sizes_after, spans_of

# In multiplications of a convolution: a number that is normalised, or counted in the statistics;
# the call of a step.
_NORMALISE, _COUNT, _CALL = 500, 250, 1_000_000


class Cut(NamedTuple):
    """The parts of an image that are computed at once.

    Attributes:
        grid: of tiles; (1, 1): whole.
        chunk: pixels of a chunk, for attention; 0 elsewhere.
    """

    grid: Grid
    chunk: int = 0


class Costs:
    """Of a network on images of one size.

    Value 0 is the input, value k the result of step k; a segment ``(begin, end)`` reads the first
    and writes the second.

    Args:
        steps: of the network.
        channels: of its input.
        height: of its input.
        width: of its input.
        model: what steps hold.
        held: bytes that are held beside all this.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        channels: int,
        height: int,
        width: int,
        model: MemoryModel,
        held: int = 0,
    ) -> None:
        self.steps = steps
        self.model = model
        self.held = held
        self.heights = sizes_after(steps, height)
        self.widths = sizes_after(steps, width)
        self.channels = [channels, *(step.channels for step in steps)]
        self.skips = [0, *(step.skip_channels for step in steps)]
        self._known_areas: dict[tuple[int, Grid], list[tuple[int, int]]] = {}

    def of(self, images: int, held: int) -> Costs:
        """Of so many images, with so many bytes held beside them."""
        model = dataclasses.replace(self.model, batch=images)
        size = self.heights[0], self.widths[0]
        return Costs(self.steps, self.channels[0], *size, model, held)

    def result(self) -> int:
        """Bytes of the last value."""
        last = len(self.steps)
        return self._bytes(last, self.pixels(last))

    def whole(self) -> int:
        """Bytes where no step is cut, and all that the kernels keep stays."""
        count = len(self.steps)
        held = max(self.states(k, k + 1) + self._beside(k) for k in range(count))
        results = [self._bytes(k, self.pixels(k)) for k in range(1, count + 1)]
        held += self.model.filters(self.steps) + self.model.scratch(self.steps)
        return self.held + held + self.model.pooled(results)

    def memory(self, begin: int, end: int, cut: Cut) -> int:
        """The most bytes that are held on the way."""
        return self.held + self._segment_memory(begin, end, cut)

    def _segment_memory(self, begin: int, end: int, cut: Cut) -> int:
        if cut.chunk:
            # The image, keys and values; of a chunk the input, the query, the result and copies.
            image, part = self._bytes(begin, self.pixels(begin)), self._bytes(begin, cut.chunk)
            images = 3 if self.model.fused else 4  # results of other kernels may need a copy
            return images * image + 5 * part + self._statistics(begin, cut.chunk)
        steps = self.steps[begin:end]
        # Scratch stays: that of the largest call so far.
        held = self.states(begin, end) + self.model.filters(steps) + self.model.scratch(self.steps)
        if cut.grid == (1, 1):
            return held + self._beside(begin)
        return held + self._tiles(begin, end, cut.grid)

    def work(self, begin: int, end: int, cut: Cut) -> int:
        """Multiplications."""
        step, pixels = self.steps[begin], self.pixels(end)
        if cut.chunk:
            return pixels * (step.work + 2 * step.channels * pixels)
        if cut.grid == (1, 1):
            return pixels * step.work + _CALL
        return self._tile_work(begin, end, cut.grid)

    def states(self, begin: int, end: int) -> int:
        """Bytes of the two kept values; the input is the caller's."""
        held = self._bytes(end, self.pixels(end))
        # A skip that passes through is one tensor in both.
        if not all(self.skips[begin + 1 : end + 1]):
            held += self._skip_bytes(end, self.pixels(end))
        if begin > 0:
            pixels = self.pixels(begin)
            held += self._bytes(begin, pixels) + self._skip_bytes(begin, pixels)
        return held

    def _beside(self, k: int) -> int:
        step = self.steps[k]
        return self.model.temporaries(step, self.channels[k], self.pixels(k + 1), tiled=False)

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
                (height * width, step.window.output_size(height) * step.window.output_size(width))
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
                work += self.pixels(stop) * self.channels[stop] * _COUNT
            if stop == begin or not (norm or stop == end):
                continue
            areas = self._areas(stop, grid)
            for k in range(begin, stop):
                (before, after), step = areas[k], self.steps[k]
                work += count * (after * step.work + _CALL)
                if step.norm is not None:
                    work += count * before * self.channels[k] * _NORMALISE
        return work

    def pixels(self, k: int) -> int:
        """Of value k."""
        return self.heights[k] * self.widths[k]

    def _bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.channels[k], pixels)

    def _skip_bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.skips[k], pixels)
