"""Memory and work of a segment, the steps from one stored value to another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from vaekernels.nn.layer_chain import Step
from vaekernels.tiling.memory import MemoryModel
from vaekernels.tiling.tiles import Grid, required_spans, sizes_after, spans_of

# Costs in units of a multiplication of a convolution: normalising an element, adding it to the
# statistics, and calling a step.
_NORMALISE, _COUNT, _CALL = 500, 250, 1_000_000


class Cut(NamedTuple):
    """How an image is divided into parts that are computed one at a time.

    Attributes:
        grid: the grid of tiles; (1, 1) for the whole image.
        chunk: for attention the number of pixels of a chunk; otherwise 0.
    """

    grid: Grid
    chunk: int = 0


class Costs:
    """Memory and work of a network on images of one size.

    Value 0 is the input and value k the result of step k. A segment ``(begin, end)`` reads value
    ``begin`` and writes value ``end``.

    Args:
        steps: the steps of the network.
        channels: number of channels of the input.
        height: height of the input.
        width: width of the input.
        model: the memory of single steps.
        held: bytes that are allocated in addition during all segments.
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
        self._cached_areas: dict[tuple[int, Grid], list[tuple[int, int]]] = {}

    def for_batch(self, images: int, held: int) -> Costs:
        """The costs of ``images`` images, with ``held`` additional bytes."""
        model = dataclasses.replace(self.model, batch=images)
        size = self.heights[0], self.widths[0]
        return Costs(self.steps, self.channels[0], *size, model, held)

    def result(self) -> int:
        """Bytes of the result of the network."""
        last = len(self.steps)
        return self._bytes(last, self.pixels(last))

    def whole(self) -> int:
        """Peak bytes without tiling, where the kernels keep their buffers between calls."""
        count = len(self.steps)
        held = max(self.states(k, k + 1) + self._live_bytes_alongside(k) for k in range(count))
        results = [self._bytes(k, self.pixels(k)) for k in range(1, count + 1)]
        held += self.model.filters(self.steps) + self.model.scratch(self.steps)
        return self.held + held + self.model.pooled(results)

    def memory(self, begin: int, end: int, cut: Cut) -> int:
        """Peak bytes of a segment."""
        return self.held + self._segment_memory(begin, end, cut)

    def _segment_memory(self, begin: int, end: int, cut: Cut) -> int:
        if cut.chunk:
            # The image, keys and values; for a chunk its input, query, result and copies.
            image, part = self._bytes(begin, self.pixels(begin)), self._bytes(begin, cut.chunk)
            images = 3 if self.model.fused else 4  # PyTorch's kernels may need a copy
            return images * image + 5 * part + self._statistics(begin, cut.chunk)
        steps = self.steps[begin:end]
        # Scratch memory is not released: it has the size of the largest call so far.
        held = self.states(begin, end) + self.model.filters(steps) + self.model.scratch(self.steps)
        if cut.grid == (1, 1):
            return held + self._live_bytes_alongside(begin)
        return held + self._tiles(begin, end, cut.grid)

    def work(self, begin: int, end: int, cut: Cut) -> int:
        """Work of a segment, in multiplications."""
        step, pixels = self.steps[begin], self.pixels(end)
        if cut.chunk:
            return pixels * (step.work + 2 * step.channels * pixels)
        if cut.grid == (1, 1):
            return pixels * step.work + _CALL
        return self._tile_work(begin, end, cut.grid)

    def states(self, begin: int, end: int) -> int:
        """Bytes of the two stored values, without the network's input, which the caller owns."""
        held = self._bytes(end, self.pixels(end))
        # A skip that all steps pass through is one tensor in both states.
        if not all(self.skips[begin + 1 : end + 1]):
            held += self._skip_bytes(end, self.pixels(end))
        if begin > 0:
            pixels = self.pixels(begin)
            held += self._bytes(begin, pixels) + self._skip_bytes(begin, pixels)
        return held

    def _live_bytes_alongside(self, k: int) -> int:
        step = self.steps[k]
        return self.model.temporaries(step, self.channels[k], self.pixels(k + 1), tiled=False)

    def _areas(self, end: int, grid: Grid) -> list[tuple[int, int]]:
        """Pixels that each step reads and writes for an inner tile of value ``end``."""
        if (end, grid) not in self._cached_areas:
            steps = self.steps[:end]
            sides = []
            for sizes, count in ((self.heights, grid.rows), (self.widths, grid.columns)):
                spans = spans_of(sizes[end], count)
                reads = required_spans(steps, sizes[:end], spans[(len(spans) - 1) // 2])[:-1]
                sides.append([span.last - span.first for span in reads])
            self._cached_areas[end, grid] = [
                (height * width, step.window.output_size(height) * step.window.output_size(width))
                for step, height, width in zip(steps, *sides, strict=True)
            ]
        return self._cached_areas[end, grid]

    def _tiles(self, begin: int, end: int, grid: Grid) -> int:
        """Peak bytes of the tiles, in addition to the stored values."""
        peak, results = 0, []
        areas = self._areas(end, grid)
        for k in range(begin, end):
            before, after = areas[k]
            step, result = self.steps[k], self._bytes(k + 1, after)
            # Tiles of a stored value and of a skip are copies.
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
        """Work of all passes over all tiles: one per inner normalisation, and the last one."""
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
        """Number of pixels of value k."""
        return self.heights[k] * self.widths[k]

    def _bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.channels[k], pixels)

    def _skip_bytes(self, k: int, pixels: int) -> int:
        return self.model.bytes(self.skips[k], pixels)
