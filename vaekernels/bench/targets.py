"""Targets: what a group of rows must reach, and whether it does.

Imports the standard library alone: the GPU suite loads this file without torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]
At = Literal["least", "most"]
Over = Literal["geometric mean", "least", "greatest"]
_OVER: dict[Over, Callable[[Sequence[float]], float]] = {
    "geometric mean": statistics.geometric_mean,
    "least": min,
    "greatest": max,
}


def reached(measured: float | None, bound: float | None, at: At = "least") -> bool | None:
    """Whether a figure is at least, or at most, a bound; None where one of them is missing."""
    if measured is None or bound is None:
        return None
    return measured <= bound if at == "most" else measured >= bound


@dataclass(frozen=True)
class Target:
    """A bound on a figure of a group's rows.

    Attributes:
        bound: the least value, or for ``greatest`` the largest, that reaches the target.
        over: the geometric mean of the rows, or the least or the greatest of them.
        figure: name of the figure in a row.
    """

    bound: float
    over: Over = "geometric mean"
    figure: str = "ratio"

    def judge(self, rows: Sequence[Row]) -> Row:
        """``{figure, over, at, goal, measured, met, rows}`` of the rows of one group.

        A row without the figure had a wrong result, or its competitor did not run: ``measured`` is
        of the other rows, and the target is not met.
        """
        figures = [row[self.figure] for row in rows if row.get(self.figure) is not None]
        measured = _OVER[self.over](figures) if figures else None
        at: At = "most" if self.over == "greatest" else "least"
        return {
            "figure": self.figure,
            "over": self.over,
            "at": at,
            "goal": self.bound,
            "measured": measured,
            "met": len(figures) == len(rows) and bool(reached(measured, self.bound, at)),
            "rows": len(rows),
        }


def mean_of(at_least: float) -> Target:
    """A target of the geometric mean of the ratios."""
    return Target(at_least)


def every_row(at_least: float) -> Target:
    """A target of every row's ratio."""
    return Target(at_least, "least")


def judge(rows: Iterable[Row], targets: Mapping[str, Sequence[Target]]) -> list[Row]:
    """Every target of every group that has rows, in the order of ``targets``."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return [
        {"group": group, **target.judge(groups[group])}
        for group, of_group in targets.items()
        if group in groups
        for target in of_group
    ]


def speedup(row: Row, against: str = "eager") -> float | None:
    """The fastest contender whose name begins with ``against``, over the fastest of ours."""
    times: dict[str, float] = row.get("ms", {})
    others = [ms for name, ms in times.items() if name.startswith(against)]
    ours = [ms for name, ms in times.items() if name.startswith("ours")]
    return min(others) / min(ours) if others and ours else None
