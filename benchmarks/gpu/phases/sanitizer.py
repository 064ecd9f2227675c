"""Memory errors and races of our kernels: compute-sanitizer's memcheck and racecheck.

All ops of a backend run in a process under each tool, on small shapes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import vaekernels as vk
from benchmarks.gpu import exercise
from benchmarks.gpu.phase import Context, Row
from vaekernels.backends import registry

_TOOLS = ("memcheck", "racecheck")
_FOUND = 97  # the exit status of a process in which a tool found something
_START = 20.0  # seconds that a process may need before its first kernel
_CASE = "case: "


def run(context: Context) -> Iterator[Row]:
    program = shutil.which("compute-sanitizer")
    if program is None:
        yield {"name": "compute-sanitizer", "refused": "it is not on PATH"}
        return
    backends = [name for name in registry.RANKING[context.device] if name != "reference"]
    works = [(tool, backend) for backend in backends for tool in _TOOLS]

    def check(work: tuple[str, str], _: float) -> Row:
        share = context.left() / (len(works) - works.index(work))
        return _check(program, *work, context.device, share)

    yield from context.each(works, ", ".join, check, start=_START)


def _check(program: str, tool: str, backend: str, device: str, seconds: float) -> Row:
    command = [program, "--tool", tool, "--error-exitcode", str(_FOUND)]
    command += ["--target-processes", "all", sys.executable, "-m", __name__, device, backend]
    result = subprocess.run(
        command,
        # Without a cache each tensor is an allocation whose bounds memcheck checks.
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    lines = result.stdout.splitlines()
    if result.returncode not in (0, _FOUND):  # the cases, or the tool, did not run
        raise RuntimeError(f"{tool} ended with {result.returncode}: {' | '.join(lines[-8:])}")
    cases = sum(line.startswith(_CASE) for line in lines)
    row: Row = {"cases": cases, "ok": result.returncode == 0 and cases > 0}
    return row if row["ok"] else {**row, "report": lines[-40:]}


def main(device: str, backend: str) -> None:
    """The process under a tool: prints the name of each case before it runs."""
    print(_CASE + "randn", flush=True)
    vk.randn((3, 257), seed=1, device=device, backend=backend)
    for case in exercise.cases_of(device):
        if isinstance(case, exercise.Case) and case.backend == backend:
            print(_CASE + case.name, flush=True)
            for shape in _small(case):
                exercise.run(case, exercise.inputs(case, shape, device))


def _small(case: exercise.Case) -> list[tuple[int, ...]]:
    """Few images, with and without channels that are aligned for bulk copies; all rows."""
    images = [case.shapes[name] for name in ("small", "odd", "aligned") if name in case.shapes]
    return images or list(case.shapes.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
