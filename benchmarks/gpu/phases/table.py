"""What was found, and the goals, as text."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu import record, tables
from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    assert context.record is not None
    print("\n".join(tables.lines(record.read(context.record))), flush=True)
    yield from ()
