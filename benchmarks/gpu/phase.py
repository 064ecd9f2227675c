"""What a phase is, and how a budget is shared among phases."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]
Work = TypeVar("Work")


@dataclass(frozen=True)
class Phase:
    """A part of the suite that runs in a process of its own.

    Attributes:
        name: that ``--only`` takes.
        about: for ``--list``.
        seconds: its deadline, where the budget has room; the start of its process counts.
        least: with fewer seconds it is left out.
        priority: which phases get their seconds first where the budget is short; 1 before 2.
        module: with ``run(context)``, which yields rows.
        default: runs without being named.
    """

    name: str
    about: str
    seconds: float
    least: float
    priority: int
    module: str
    default: bool = True


def shares(phases: Sequence[Phase], seconds: float) -> dict[str, float]:
    """How many seconds each phase gets; those that get none are absent.

    By priority each gets the least that it needs, then what it wants. Together at most ``seconds``.
    """
    ranked = sorted(phases, key=lambda phase: phase.priority)
    given: dict[str, float] = {}
    for phase in ranked:
        if phase.least <= seconds:
            given[phase.name] = phase.least
            seconds -= phase.least
    for phase in ranked:
        if phase.name in given:
            more = min(phase.seconds - phase.least, seconds)
            given[phase.name] += more
            seconds -= more
    return given


@dataclass
class Context:
    """What a phase is told.

    Attributes:
        device: ``"cuda"``, or ``"cpu"``, where sizes are tiny: the suite's own logic is tried.
        seconds: until its process is killed.
        record: the file with what the phases before it found; it may be absent.
        began: when its time began to count.
    """

    device: str = "cpu"
    seconds: float = 60.0
    record: Path | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def tiny(self) -> bool:
        """Whether sizes are for trying the suite out."""
        return self.device == "cpu"

    def left(self) -> float:
        """Seconds for more work: it is better to end by oneself than to be killed."""
        margin = min(5.0, 0.1 * self.seconds)
        return self.seconds - margin - (time.monotonic() - self.began)

    def each(
        self,
        works: Sequence[Work],
        name: Callable[[Work], str],
        measure: Callable[[Work, float], Row],
        *,
        most: float = 1.5,
        start: float = 1.0,
    ) -> Iterator[Row]:
        """A row of each work: measured, or why there is none; the phase goes on after an error.

        Args:
            works: in the order of their importance: the last ones are left out first.
            name: of a work's row.
            measure: from a work and the seconds of measuring.
            most: seconds of measuring; next to none where sizes are tiny.
            start: seconds that a work may need before it measures; with fewer it is left out.
        """
        for index, work in enumerate(works):
            row: Row = {"name": name(work)}
            left = self.left()
            if left < start:
                yield {**row, "skipped": "no time was left"}
                continue
            share = 0.01 if self.tiny else min(most, max(0.05, 0.4 * left / (len(works) - index)))
            found = _attempt(measure, work, share)
            yield row | found
            if "failed" in found:
                _recover(self.device)


def _attempt(measure: Callable[[Work, float], Row], work: Work, seconds: float) -> Row:
    try:
        return measure(work, seconds)
    except Exception as failure:  # one row is lost, not the phase
        traceback.print_exc()
        return {"failed": brief(failure)}


def brief(failure: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {text[:600]}"


def _recover(device: str) -> None:
    """Free what a failed work held; after an illegal access no call succeeds: the phase ends."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
