"""The record and its targets as text."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu import record
from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    assert context.record is not None
    print("\n".join(record.lines(record.read(context.record))), flush=True)
    yield from ()
