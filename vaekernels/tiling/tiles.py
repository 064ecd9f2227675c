"""Positions of tiles, and the pixels of an earlier value that a tile of a later one needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vaekernels.nn.layer_chain import Step


class Span(NamedTuple):
    """A range of rows or columns from ``first`` to ``last`` (exclusive)."""

    first: int
    last: int


class Grid(NamedTuple):
    """Number of tiles in each direction."""

    rows: int
    columns: int

    def finer(self, height: int, width: int) -> Grid:
        """The grid with twice as many tiles, where the longer side of a tile is halved."""
        if height * self.columns >= width * self.rows:
            return Grid(2 * self.rows, self.columns)
        return Grid(self.rows, 2 * self.columns)


def spans_of(size: int, count: int) -> list[Span]:
    """Divide ``size`` into at most ``count`` spans of equal length; the last may be shorter."""
    length = -(-size // count)
    return [Span(first, min(first + length, size)) for first in range(0, size, length)]


def tiles(height: int, width: int, grid: Grid) -> Iterator[tuple[Span, Span]]:
    """The rows and columns of every tile of an image."""
    columns = spans_of(width, grid.columns)
    for rows in spans_of(height, grid.rows):
        for span in columns:
            yield rows, span


def required_spans(steps: Sequence[Step], sizes: Sequence[int], span: Span) -> list[Span]:
    """The spans of all values that ``span`` of the last value depends on, ``span`` included.

    Args:
        steps: the steps from the first value to the last.
        sizes: size of the input of each step, in the direction of ``span``.
        span: span of the last value.
    """
    spans = [span]
    for step, size in zip(reversed(steps), reversed(sizes), strict=True):
        spans.append(Span(*step.window.required_rows(*spans[-1], size)))
    return spans[::-1]


def sizes_after(steps: Sequence[Step], size: int) -> list[int]:
    """The number of rows of every value, for ``size`` rows of the first one."""
    sizes = [size]
    for step in steps:
        sizes.append(step.window.output_size(sizes[-1]))
    return sizes
