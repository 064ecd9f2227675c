"""Raises before its first row."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    raise RuntimeError("no device")
    yield {}
