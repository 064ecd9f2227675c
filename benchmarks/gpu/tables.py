"""The record for people, as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.phase import Row

# Columns that a line of a row leaves to the JSON.
_QUIET = {"name", "group", "op", "case", "direction", "ms", "spread", "buffers"}
_RATES = ("gbps", "tflops")
_BAD = ("skipped", "failed", "does_not_run", "graph_failed")


def line(row: Row) -> str:
    """A row on one line: its name, its times, and what else was found."""
    found = {key: value for key, value in row.items() if key not in _QUIET}
    cells = [f"{key} {_text(value)}" for key, value in found.items()]
    return f"{row['name']:52} {', '.join([*_times(row), *cells])}"


def speedup(row: Row, against: str = "eager") -> float | None:
    """The fastest contender whose name begins with ``against``, over the fastest of ours."""
    times: dict[str, float] = row.get("ms", {})
    theirs = [ms for name, ms in times.items() if name.startswith(against)]
    ours = [ms for name, ms in times.items() if name.startswith("ours")]
    return min(theirs) / min(ours) if theirs and ours else None


def lines(record: Row) -> Iterator[str]:
    """The record: each phase with its times and with what went wrong, then the goals."""
    yield f"commit {record['commit']}, {record['started']}"
    for name, entry in record["phases"].items():
        rows = entry["rows"]
        yield f"{name}: {entry['status']}, {entry.get('seconds', 0):.0f} s, {len(rows)} rows"
        for row in rows:
            wrong = [f"{key} {_text(row[key])}" for key in _BAD if key in row]
            if row.get("ok") is False:
                wrong.append(f"WRONG, error {_text(row.get('error'))}")
            if wrong or "ms" in row:
                rates = [f"{key} {_text(row[key])}" for key in _RATES if key in row]
                yield f"  {row['name']:50} {', '.join([*_times(row), *rates, *wrong])}"
    yield from goal_lines(record["goals"])


def goal_lines(goals: list[Row]) -> Iterator[str]:
    """A line for each goal, and how many are met."""
    yield f"{'goal':62}{'must':>9}{'stretch':>9}{'measured':>10}  met"
    for goal in goals:
        met = {True: "yes", False: "NO", None: "-"}[goal["met"]]
        if goal["stretch_met"]:
            met = "stretch"
        bound = "<=" if goal["at"] == "most" else ">="
        unit = f" ({goal['unit']})" if goal["unit"] else ""
        name = f"{goal['number']:>2}. {goal['goal']}{unit} {bound}"
        levels = "".join(
            f"{_number(goal[key]):>{width}}"
            for key, width in (("must", 9), ("stretch", 9), ("measured", 10))
        )
        yield f"{name:62}{levels}  {met}{'  ' + goal['why'] if goal['why'] else ''}"
    counts = [sum(goal["met"] is state for goal in goals) for state in (True, False, None)]
    yield "{} met, {} not met, {} not measured".format(*counts)


def _times(row: Row) -> list[str]:
    """Milliseconds of each contender, and what ours gains."""
    cells = [f"{who} {_number(ms)}" for who, ms in row.get("ms", {}).items()]
    ratio = speedup(row)
    return cells if ratio is None else [*cells, f"{ratio:.2f}x"]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_text(item)}' for key, item in value.items())})"
    return str(value)
