"""Execution of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekernels.nn.layer_chain import Affine, State, Step, run_steps
from vaekernels.ops._filters import released_after
from vaekernels.tiling.moments import GroupStatistics
from vaekernels.tiling.plan import Plan, Segment
from vaekernels.tiling.tiles import Grid, Span, required_spans, sizes_after, tiles


@torch.no_grad()
def run_plan(plan: Plan, steps: Sequence[Step], x: Tensor) -> Tensor:
    """Run ``steps`` on ``x`` according to ``plan``, without recording a graph."""
    if plan.images == len(x):
        return _run_at_once(plan, steps, x)
    result = None
    for first in range(0, len(x), plan.images):
        some = slice(first, first + plan.images)
        part = _run_at_once(plan, steps, x[some])
        if result is None:
            result = _empty((len(x), *part.shape[1:]), part)
        result[some] = part
    assert result is not None  # an empty batch has plan.images == len(x)
    return result


def _run_at_once(plan: Plan, steps: Sequence[Step], x: Tensor) -> Tensor:
    if plan.whole:
        return run_steps(steps, x)
    state = State(x)
    for segment in plan.segments:
        part = steps[segment.first : segment.last]
        # Buffers that the kernels keep count as memory, and the next segment reuses few of them.
        with released_after(conv.weight for step in part for conv in step.convs):
            state = _run_segment(segment, part, state)
    return state.x


def _run_segment(segment: Segment, steps: Sequence[Step], state: State) -> State:
    grid, chunk = segment.cut
    if chunk:
        return State(_attend(steps[0], state.x, chunk))
    if grid == (1, 1):
        return steps[0].run(state, None)
    return _Tiles(steps, state, grid).run()


def _attend(step: Step, x: Tensor, chunk: int) -> Tensor:
    assert step.attend is not None
    statistics = GroupStatistics(_norm(step))
    for rows in x.split(max(1, chunk // x.shape[3]), dim=2):
        statistics.add(rows)
    return step.attend(x, statistics.affine(), chunk)


def _norm(step: Step) -> torch.nn.GroupNorm:
    assert step.norm is not None
    return step.norm


class _Tiles:
    """Computes a segment tile by tile."""

    def __init__(self, steps: Sequence[Step], state: State, grid: Grid) -> None:
        self.steps = steps
        self.state = state
        self.grid = grid
        self.affines: list[Affine | None] = []
        height, width = state.x.shape[2:]
        self.heights, self.widths = sizes_after(steps, height), sizes_after(steps, width)

    def run(self) -> State:
        for index, step in enumerate(self.steps):
            self.affines.append(None if step.norm is None else self._statistics(index, step))
        end = len(self.steps)
        last = self.steps[-1]
        shape = self.state.x.shape[0], last.channels, self.heights[end], self.widths[end]
        x = _empty(shape, self.state.x)
        skip = self._unchanged_skip()
        copied = skip is None and last.skip_channels > 0
        if copied:
            skip = _empty((shape[0], last.skip_channels, *shape[2:]), self.state.x)
        for rows, columns in tiles(self.heights[end], self.widths[end], self.grid):
            tile = self._tile(end, rows, columns)
            _crop(x, rows, columns).copy_(tile.x)
            if copied and skip is not None and tile.skip is not None:
                _crop(skip, rows, columns).copy_(tile.skip)
        return State(x, skip)

    def _statistics(self, index: int, step: Step) -> Affine:
        """The normalisation of a step, with the statistics of its whole input."""
        statistics = GroupStatistics(_norm(step))
        for rows, columns in tiles(self.heights[index], self.widths[index], self.grid):
            statistics.add(self._tile(index, rows, columns).x)
        return statistics.affine()

    def _unchanged_skip(self) -> Tensor | None:
        """The stored tensor, if it is the skip after the last step, too."""
        if not all(step.skip_channels for step in self.steps):
            return None
        return self.state.x if self.state.skip is None else self.state.skip

    def _tile(self, end: int, rows: Span, columns: Span) -> State:
        """A tile of value ``end``, computed from the stored value."""
        steps = self.steps[:end]
        spans = [
            required_spans(steps, self.heights[:end], rows),
            required_spans(steps, self.widths[:end], columns),
        ]
        state = _crop_state(self.state, *(along[0] for along in spans))
        for index, (step, affine) in enumerate(zip(steps, self.affines, strict=False)):
            state = step.run(state, affine)
            # Pixels at the border lack neighbours outside the tile; they are cropped.
            state = _crop_state(
                state,
                *(
                    _relative(step.window.output_origin(a[index].first), a[index + 1])
                    for a in spans
                ),
            )
        return state


def _relative(origin: int, span: Span) -> Span:
    return Span(span.first - origin, span.last - origin)


def _crop(image: Tensor, rows: Span, columns: Span) -> Tensor:
    return image[:, :, rows.first : rows.last, columns.first : columns.last]


def _crop_state(state: State, rows: Span, columns: Span) -> State:
    skip = None if state.skip is None else _crop(state.skip, rows, columns)
    return State(_crop(state.x, rows, columns), skip)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
