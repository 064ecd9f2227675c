"""Memory errors and races of the emulated CUDA kernels, as compute-sanitizer finds them on a card.

Every kernel runs without a report; then with a mistake in it, which must be reported.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backends.cuda.emulation import build

MEMORY, RACES = "address,undefined", "thread"
TWO_BARRIERS = "if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();"


@dataclass(frozen=True)
class Mistake:
    """A text of a file of csrc/cuda, what stands in its place, and what is said of it."""

    file: str
    old: str
    new: str
    kernel: str  # the one device file that is compiled anew
    exercise: str
    sanitizer: str
    report: str


MISTAKES = {
    "a barrier is missing before shared memory is read": Mistake(
        *("work_partition.cuh", "  __syncthreads();\n  x = 0.0;", "  x = 0.0;"),
        *("sums.cu", "merge_sums", RACES, "data race"),
    ),
    "a barrier is missing before shared memory is written again": Mistake(
        *(
            "work_partition.cuh",
            "  __syncthreads();  // the sums of an earlier call have been read\n",
            "",
        ),
        *("row_reduction.cu", "gaussian_kl, scalars", RACES, "data race"),
    ),
    "blocks write the same partial sum": Mistake(
        *(
            "work_partition.cuh",
            "sums.partials[item.index] = total",
            "sums.partials[item.row] = total",
        ),
        *("rsample_kl.cu", "rsample_kl", RACES, "data race"),
    ),
    "an access is wider than rows are aligned": Mistake(
        *("access.cuh", "N * sizeof(Element) : 16)", "N * sizeof(Element) : 64)"),
        *("randn.cu", "randn", MEMORY, "misaligned address"),
    ),
    "the last unit is taken for a whole one": Mistake(
        *("work_partition.cuh", "left < kUnit ? left : kUnit", "kUnit"),
        *("randn.cu", "randn", MEMORY, "heap-buffer-overflow"),
    ),
    "an item too many": Mistake(
        *(
            "work_partition.cuh",
            "item.index >= partition.items()",
            "item.index > partition.items()",
        ),
        *("sums.cu", "merge_sums", MEMORY, "heap-buffer-overflow"),
    ),
    "an index beyond a thread's own array": Mistake(
        *("noise.cuh", "pair < 4; pair += 2", "pair <= 4; pair += 2"),
        *("randn.cu", "randn", MEMORY, "out of bounds"),
    ),
    "elements of the last unit are left out": Mistake(
        *("work_partition.cuh", "at < item.count;", "at + kUnit <= item.count;"),
        *("randn.cu", "randn", MEMORY, "randn: wrong result"),
    ),
    "a warp's sum is left out": Mistake(
        *("work_partition.cuh", "warp < kWarps; ++warp", "warp < kWarps - 1; ++warp"),
        *("sums.cu", "merge_sums", MEMORY, "merge_sums: wrong result"),
    ),
    "all lanes write, and the last one is right": Mistake(
        *("work_partition.cuh", "if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;"),
        "of_warp[threadIdx.x / 32] = threadIdx.x % 32 == 31 ? x : 0.0;",
        *("sums.cu", "merge_sums", MEMORY, "merge_sums: wrong result"),
    ),
    "threads are at different barriers": Mistake(
        *("sums.cu", "double sum = 0.0;", "double sum = 0.0;\n" + TWO_BARRIERS),
        *("sums.cu", "merge_sums", MEMORY, "for threads of its block that never come"),
    ),
    "a lane ends before a shuffle": Mistake(
        *("sums.cu", "double sum = 0.0;", "double sum = 0.0; if (item.thread == 3) return;"),
        *("sums.cu", "merge_sums", MEMORY, "for threads of its warp that never come"),
    ),
}


@pytest.fixture(scope="module")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The program for a sanitizer, compiled when it is first asked for."""

    @functools.cache
    def program(sanitizer: str) -> Path:
        folder = tmp_path_factory.mktemp("sanitizer")
        reasons = build.refusals() or build.sanitizer_refusals(folder, sanitizer)
        if reasons:
            pytest.skip("; ".join(reasons))
        return build.program(folder, sanitizer)

    return program


def report_of(program: Path, *exercises: str) -> tuple[int, str]:
    """The exit status, and what was printed."""
    result = subprocess.run(
        [program, *exercises],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "unexpected memory mapping" in result.stdout:  # by chance, where addresses are very random
        pytest.skip(result.stdout)
    return result.returncode, result.stdout


@pytest.mark.parametrize("sanitizer", [MEMORY, RACES])
def test_nothing_is_reported(sanitizer: str, program_of: Callable[[str], Path]) -> None:
    status, report = report_of(program_of(sanitizer))
    assert status == 0, report[:4000]


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported(
    mistake: Mistake, program_of: Callable[[str], Path], tmp_path: Path
) -> None:
    program = program_of(mistake.sanitizer)
    csrc = build.changed_sources(tmp_path, mistake.file, mistake.old, mistake.new)
    flags = build.sanitizing(mistake.sanitizer)
    changed = build.kernels(tmp_path, [csrc / "cuda" / mistake.kernel], *flags)
    status, report = report_of(build.relinked(program, changed, *flags), mistake.exercise)
    assert status != 0
    assert mistake.report in report
