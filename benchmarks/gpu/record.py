"""The record of a run: one JSON file, complete at any moment."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gpu.phase import Row

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILED, TIMED_OUT, NO_TIME = "done", "failed", "timed out", "no time"


def write(record: Row, path: Path) -> None:
    """Replace the file as a whole; after a crash it holds this record or the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _atomic().atomic_write(path) as file:
        file.write(dumps(record, indent=1).encode() + b"\n")


def read(path: Path) -> Row:
    """The record in a file."""
    found: Row = json.loads(path.read_text())
    return found


def dumps(value: Any, indent: int | None = None) -> str:
    """As JSON, which has no NaN and no infinity: they become their names."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def rows(record: Row, phase: str) -> list[Row]:
    """The rows of a phase; none where it did not run."""
    found: list[Row] = record["phases"].get(phase, {}).get("rows", [])
    return found


def _atomic() -> ModuleType:
    """Loads ``atomic_file.py`` alone, so that a package or torch that fails leaves the record."""
    path = ROOT / "vaekernels" / "utils" / "atomic_file.py"
    spec = importlib.util.spec_from_file_location("atomic_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
