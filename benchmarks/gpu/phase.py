"""Phases of the suite, and how a budget is shared among them."""

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
        about: description for ``--list``.
        seconds: its deadline if the budget suffices, the start of its process included.
        least: with fewer seconds it is left out.
        priority: the order in which phases get seconds of a short budget; 1 before 2.
        module: with ``run(context)``, which yields rows.
        default: whether it runs without being named.
    """

    name: str
    about: str
    seconds: float
    least: float
    priority: int
    module: str
    default: bool = True


def shares(phases: Sequence[Phase], seconds: float) -> dict[str, float]:
    """Seconds of each phase; phases without any are absent.

    By priority each phase gets ``least``, then what is left up to its ``seconds``.
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
    """Arguments of a phase.

    Attributes:
        device: ``"cuda"``; or ``"cpu"`` with tiny sizes, to test the suite itself.
        seconds: until its process is killed.
        record: the file with the results of earlier phases; it may be absent.
        began: when its time started.
    """

    device: str = "cpu"
    seconds: float = 60.0
    record: Path | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def tiny(self) -> bool:
        """Whether sizes are tiny, to test the suite itself."""
        return self.device == "cpu"

    @property
    def dtype(self) -> Any:
        """Of the measured tensors: bfloat16; float32 on CPU, whose convolutions have no other."""
        import torch  # not in the process that runs the phases

        return torch.float32 if self.tiny else torch.bfloat16

    def left(self) -> float:
        """Seconds left, less a margin to end before the deadline."""
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
        """A row of each work: its result, or the error; the phase continues after an error.

        Args:
            works: in the order of their importance: the last ones are left out first.
            name: work -> name of its row.
            measure: work, seconds of measuring -> columns of its row.
            most: seconds of measuring at most.
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
    """Free the memory of a failed work; raises after an illegal access, which ends the phase."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
