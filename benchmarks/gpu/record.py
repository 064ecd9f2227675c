"""The record of a run as one JSON file, complete at any moment, and as text.

The process that runs the phases imports this module: it must not import torch.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gpu.phase import Row

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILED, TIMED_OUT, NO_TIME = "done", "failed", "timed out", "no time"


def _load_alone(path: str) -> ModuleType:
    """Load a module of the package by its path, without importing the package and torch."""
    spec = importlib.util.spec_from_file_location(f"_{Path(path).stem}", ROOT / "vaekernels" / path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_atomic_file = _load_alone("utils/atomic_file.py")
targets = _load_alone("bench/targets.py")


def write(record: Row, path: Path) -> None:
    """Replace the file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _atomic_file.atomic_write(path) as file:
        file.write(dumps(record, indent=1).encode() + b"\n")


def read(path: Path) -> Row:
    """The record in a file."""
    found: Row = json.loads(path.read_text())
    return found


def dumps(value: Any, indent: int | None = None) -> str:
    """As JSON, with NaN and infinity as their names."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def rows(record: Row, phase: str) -> list[Row]:
    """The rows of a phase; empty if it did not run."""
    found: list[Row] = record["phases"].get(phase, {}).get("rows", [])
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# Columns that a line of a row omits.
_QUIET = {"name", "group", "op", "case", "direction", "ms", "spread", "buffers"}
_RATES = ("gbps", "tflops")
_BAD = ("skipped", "failed", "does_not_run", "graph_failed")


def line(row: Row) -> str:
    """A row on one line: its name, its times, and its other columns."""
    found = {key: value for key, value in row.items() if key not in _QUIET}
    cells = [f"{key} {_text(value)}" for key, value in found.items()]
    return f"{row['name']:52} {', '.join([*_times(row), *cells])}"


def lines(record: Row) -> Iterator[str]:
    """The record: each phase with its times and errors, then the targets."""
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
    """A line for each target, and how many are met."""
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
    """Milliseconds of each contender, and the speed-up of ours."""
    cells = [f"{who} {_number(ms)}" for who, ms in row.get("ms", {}).items()]
    ratio = targets.speedup(row)
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
