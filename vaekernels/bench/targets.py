"""Goals: what a group of rows must reach, and whether it does."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]


Over = Literal["geometric mean", "least", "greatest"]
_OVER: dict[Over, Callable[[Sequence[float]], float]] = {
    "geometric mean": statistics.geometric_mean,
    "least": min,
    "greatest": max,
}


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of a group's rows.

    Attributes:
        bound: what to reach, or for ``greatest`` not to exceed.
        over: the rows' geometric mean, or their worst: the least or the greatest.
        figure: which figure of a row.
    """

    bound: float
    over: Over = "geometric mean"
    figure: str = "ratio"

    def judge(self, rows: Sequence[Row]) -> Row:
        """``{figure, over, at, goal, measured, met, rows}`` of the rows of one group.

        A row without the figure is one whose result was wrong, or whose rival did not run: what is
        measured is of the others, and the goal is not met.
        """
        figures = [row[self.figure] for row in rows if row.get(self.figure) is not None]
        measured = _OVER[self.over](figures) if figures else None
        met = False
        if measured is not None and len(figures) == len(rows):
            met = measured <= self.bound if self.over == "greatest" else measured >= self.bound
        return {
            "figure": self.figure,
            "over": self.over,
            "at": "most" if self.over == "greatest" else "least",
            "goal": self.bound,
            "measured": measured,
            "met": met,
            "rows": len(rows),
        }


def mean_of(at_least: float) -> Goal:
    """A goal of the geometric mean of the ratios."""
    return Goal(at_least)


def every_row(at_least: float) -> Goal:
    """A goal of every row's ratio."""
    return Goal(at_least, "least")


def judge(rows: Iterable[Row], goals: Mapping[str, Sequence[Goal]]) -> list[Row]:
    """Every goal of every group that has rows, in the order of ``goals``."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return [
        {"group": group, **goal.judge(groups[group])}
        for group, of_group in goals.items()
        if group in groups
        for goal in of_group
    ]
