"""Succeeds, but one of its works fails."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.phase import Context, Row


def run(context: Context) -> Iterator[Row]:
    yield from context.each(["bad", "good"], str, _measure)


def _measure(work: str, seconds: float) -> Row:
    if work == "bad":
        raise ArithmeticError("it was here")
    return {}
