"""The command line of the suite."""

from __future__ import annotations

import argparse
import datetime
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import record
from benchmarks.gpu.phase import Phase, Row
from benchmarks.gpu.phases import PHASES
from benchmarks.gpu.record import ROOT
from benchmarks.gpu.runner import run
from benchmarks.gpu.targets import judge

BUDGET = 520.0  # seconds; under nine minutes with the time between phases


def main(arguments: Sequence[str] | None = None, phases: Sequence[Phase] = PHASES) -> int:
    """Run the suite.

    Returns:
        0, or 1 where a phase failed or a result was wrong.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        print(listing(phases))
        return 0
    try:
        chosen = choose(phases, options.only)
        out = options.out or default_path(options.device, chosen if options.only else ())
        found = _begin(chosen, out, options)
    except (ValueError, OSError) as error:
        print(f"gpu_suite: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _stop)
    run(chosen, found, device=options.device, budget=options.budget, out=out, judge=judge)
    print(f"wrote {out}")
    return int(not successful(found))


def choose(phases: Sequence[Phase], only: str | None) -> list[Phase]:
    """The phases that ``only`` names, separated by commas; those that run by default for None.

    Raises:
        ValueError: there is no such phase.
    """
    if only is None:
        return [phase for phase in phases if phase.default]
    wanted = [name.strip() for name in only.split(",")]
    known = [phase.name for phase in phases]
    for name in wanted:
        if name not in known:
            raise ValueError(f"--only: expected some of {', '.join(known)}; got {name!r}")
    return [phase for phase in phases if phase.name in wanted]


def listing(phases: Sequence[Phase]) -> str:
    """A line for each phase."""
    lines = []
    for phase in phases:
        named = "" if phase.default else "; only by name"
        lines.append(f"{phase.name:13}{phase.seconds:5.0f} s  {phase.about}{named}")
    return "\n".join(lines)


def default_path(device: str, only: Sequence[Phase] = ()) -> Path:
    """Path of the record of this machine's GPU.

    Args:
        device: ``"cuda"``.
        only: the phases, where they were named: their record is a file of its own, except of
            "table", which reads that of a whole run.

    Raises:
        ValueError: the device has none.
    """
    if device != "cuda":
        raise ValueError(f"--device {device} is for testing the suite: give --out too")
    # Not by torch: this process must not occupy the device.
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        name = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        slug = re.sub(r"[^a-z0-9]+", "-", name.stdout.splitlines()[0].lower()).strip("-")
    except (OSError, subprocess.SubprocessError, IndexError):
        raise ValueError("nvidia-smi names no GPU; give --out to run without one") from None
    names = ["gpu_suite", *(phase.name for phase in only if phase.name != "table")]
    return ROOT / "benchmarks" / "results" / slug / f"{'_'.join(names)}.json"


def successful(found: Row) -> bool:
    """Whether no phase and no work of one failed, and no result was wrong."""
    entries = found["phases"].values()
    failed = any(entry["status"] in (record.FAILED, record.TIMED_OUT) for entry in entries)
    return not failed and not any(
        "failed" in row or row.get("ok") is False for entry in entries for row in entry["rows"]
    )


def _begin(chosen: Sequence[Phase], out: Path, options: argparse.Namespace) -> Row:
    """An empty record; the existing one if only the table is wanted."""
    if [phase.name for phase in chosen] == ["table"]:
        return record.read(out)
    settings = {"device": options.device, "budget_s": options.budget, "only": options.only}
    return {
        "suite": "gpu",
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": options.commit or _commit(),
        "settings": settings,
        "phases": {},
        "goals": [],
    }


def _commit() -> str | None:
    """The commit of this checkout, marked if files differ from it; None for a copy without .git."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() or None


def _stop(number: int, frame: object) -> None:
    """Exit as after Ctrl-C, so that the running phase is ended too."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_suite", description="Check and measure this checkout on a GPU."
    )
    parser.add_argument("--list", action="store_true", help="print the phases and end")
    parser.add_argument("--only", metavar="PHASE[,PHASE]", help="these phases")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, help="seconds, all together (%(default)g)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON file (benchmarks/results/<gpu>/gpu_suite.json, or with --only one of those "
        "phases)",
    )
    parser.add_argument("--commit", help="what is measured, for a copy without .git")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu tests the suite itself, on tiny sizes",
    )
    return parser
