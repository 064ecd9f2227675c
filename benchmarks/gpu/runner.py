"""Run phases one after the other, each in a process with a deadline; record after each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu import record
from benchmarks.gpu.phase import Phase, Row, shares

_TAIL = 4000  # bytes of a failed phase's stderr
_PATIENCE = 10.0  # seconds for a killed process to end


def _print(text: str) -> None:
    print(text, flush=True)  # in order with what the phases print


def run(
    phases: Sequence[Phase],
    found: Row,
    *,
    device: str,
    budget: float,
    out: Path,
    judge: Callable[[Row], list[Row]],
    say: Callable[[str], None] = _print,
) -> Row:
    """Run ``phases`` in their order and record each.

    Args:
        phases: the phases. Before each, the rest of the budget is shared anew, so that the time of
            one that ends early goes to the others.
        found: the record to fill.
        device: ``"cuda"`` or ``"cpu"``.
        budget: seconds, all together.
        out: the file of the record; rewritten after each phase.
        judge: record -> its targets.
        say: called with each line of output.

    Returns:
        The record.
    """
    end = time.monotonic() + budget
    with tempfile.TemporaryDirectory(prefix="gpu-suite-") as folder:
        for index, phase in enumerate(phases):
            seconds = shares(phases[index:], end - time.monotonic()).get(phase.name)
            if seconds is None:
                say(f"{phase.name}: no time")
                entry: Row = {"status": record.NO_TIME, "rows": []}
            else:
                say(f"{phase.name}: at most {seconds:.0f} s")
                entry = run_phase(phase, seconds, device=device, out=out, caches=Path(folder))
                say(f"{phase.name}: {entry['status']} after {entry['seconds']:.0f} s")
                if "stderr_tail" in entry:
                    say(entry["stderr_tail"])
            found["phases"][phase.name] = entry
            found["goals"] = judge(found)
            record.write(found, out)
    return found


def run_phase(phase: Phase, seconds: float, *, device: str, out: Path, caches: Path) -> Row:
    """One phase in a process group of its own, which is killed at the deadline.

    Args:
        phase: the phase.
        seconds: until it is killed.
        device: ``"cuda"`` or ``"cpu"``.
        out: the record so far.
        caches: folder of compiled kernels; shared by the phases of a run, and empty before it.

    Returns:
        ``status``, ``seconds``, ``allowed_s``, ``rows``, ``exit_code`` (None after a kill); and
        ``stderr_tail`` where the phase or a row failed.
    """
    with tempfile.TemporaryDirectory(prefix=f"gpu-suite-{phase.name}-") as folder:
        rows, errors = Path(folder, "rows"), Path(folder, "stderr")
        command = [sys.executable, "-m", "benchmarks.gpu.child", phase.module]
        command += ["--device", device, "--seconds", f"{seconds:.1f}"]
        command += ["--rows", str(rows), "--record", str(out)]
        began = time.monotonic()
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=_environment(caches, device),
                start_new_session=True,
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        status = {None: record.TIMED_OUT, 0: record.DONE}.get(code, record.FAILED)
        entry: Row = {
            "status": status,
            "seconds": round(time.monotonic() - began, 2),
            "allowed_s": round(seconds, 1),
            "exit_code": code,
            "rows": _rows(rows),
        }
        if status != record.DONE or any("failed" in row for row in entry["rows"]):
            entry["stderr_tail"] = errors.read_bytes()[-_TAIL:].decode(errors="replace")
    return entry


def _environment(caches: Path, device: str) -> dict[str, str]:
    """Of a phase: this checkout, and empty caches of compiled kernels."""
    paths = [str(record.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # On CPU sizes are too small for several threads.
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    return {
        **os.environ,
        **threads,
        "PYTHONPATH": os.pathsep.join(paths),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children, such as compilers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver
        process.wait(_PATIENCE)


def _rows(path: Path) -> list[Row]:
    """The rows in a file of lines; the last line may be cut off by a kill."""
    found: list[Row] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(text))
    return found
