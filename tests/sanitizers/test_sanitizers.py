"""The CPU library under sanitizers: no access out of bounds, no race; and mistakes are reported.

The libraries are kept in build/, so that a second run compiles only what changed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sanitizers import build
from tests.sanitizers.build import MEMORY, RACES
from vaekernels.backends import extension

pytestmark = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)

EXERCISE = Path(__file__).with_name("exercise.py")
CLEAN = re.compile(r"^done$", re.MULTILINE)


@pytest.fixture(scope="module")
def library_of() -> Callable[[str], Path]:
    """The library with a sanitizer, compiled when it is first asked for."""

    @functools.cache
    def library(sanitizer: str) -> Path:
        reasons = build.refusals(sanitizer)
        if reasons:
            pytest.skip("; ".join(reasons))
        return build.library(
            build.ROOT / "build" / f"sanitize-{sanitizer.partition(';')[0]}", sanitizer
        )

    return library


def check_clean(status: int, report: str) -> None:
    assert status == 0, report[-6000:]
    assert CLEAN.search(report), report[-6000:]
    for name in ("AddressSanitizer", "ThreadSanitizer", "runtime error"):
        assert name not in report, report[-6000:]


@pytest.mark.parametrize(("sanitizer", "calls"), [(MEMORY, 150), (RACES, 300)])
def test_random_calls(sanitizer: str, calls: int, library_of: Callable[[str], Path]) -> None:
    package = build.package(library_of(sanitizer))
    status, report = build.run(package, sanitizer, EXERCISE, "0", str(calls))
    check_clean(status, report)
    assert str(package) in report.splitlines()[0]  # the library that ran


@pytest.mark.slow
@pytest.mark.parametrize("seed", (1, 2, 3, 4))
@pytest.mark.parametrize("sanitizer", [MEMORY, RACES])
def test_many_random_calls(sanitizer: str, seed: int, library_of: Callable[[str], Path]) -> None:
    package = build.package(library_of(sanitizer))
    check_clean(*build.run(package, sanitizer, EXERCISE, str(seed), "1000"))


OPS_TESTS = """
import sys
import vaekernels.backends.extension
import pytest
print("library", vaekernels.backends.extension.load().__file__)
status = pytest.main(["-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *sys.argv[1:]])
print("done" if status == 0 else "failed")
sys.exit(int(status))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", [MEMORY, RACES])
def test_the_tests_of_the_ops(sanitizer: str, library_of: Callable[[str], Path]) -> None:
    package = build.package(library_of(sanitizer))
    # Tests that start processes of their own, or a compiler, do not run on this library.
    without = ("compile", "inductor", "interpreter", "recompile", "pool", "serve_again", "freed")
    arguments = ["-m", "not slow", "-k", " and ".join(f"not {word}" for word in without)]
    tests = str(build.ROOT / "tests" / "ops")
    status, report = build.run(package, sanitizer, "-c", OPS_TESTS, tests, *arguments)
    check_clean(status, report)


@dataclass(frozen=True)
class Mistake:
    """A text of a file of csrc, what stands in its place, and what is said of it."""

    file: str
    old: str
    new: str
    source: str  # the one file that is compiled anew
    call: str  # Python, with vk and torch
    sanitizer: str
    report: str


FEW_OUTPUTS = "vk.conv3x3(torch.randn(1, 16, 16, 1), torch.randn(3, 16, 3, 3))"
FEW_OUTPUTS_WIDE = "vk.conv3x3(torch.randn(1, 16, 80, 80), torch.randn(3, 16, 3, 3))"
FEW_INPUTS = "vk.conv3x3(torch.randn(1, 3, 16, 16), torch.randn(13, 3, 3, 3))"
MISTAKES = {
    "a group of pixels is taken for a whole one": Mistake(
        *("cpu/conv/few_outputs_kernel.cpp", "multiply_pixels(conv, x, products, rest)"),
        *("multiply_pixels(conv, x, products, kRows)", "cpu/conv/few_outputs_kernel.cpp"),
        *(FEW_OUTPUTS, MEMORY, "heap-buffer-overflow"),
    ),
    "a group of pixels starts before the first": Mistake(
        *("cpu/conv/few_outputs_kernel.cpp", "multiply_pixels(conv, x, products, rest)"),
        "multiply_pixels(conv, x + (rest - kRows) * conv.in_channels,"
        " products + (rest - kRows) * pixel_stride(conv), kRows)",
        *("cpu/conv/few_outputs_kernel.cpp", FEW_OUTPUTS, MEMORY, "heap-buffer-overflow"),
    ),
    "more lanes are stored than a register has": Mistake(
        *(
            "cpu/vector.h",
            "k < kLanes && k < n; ++k) to[k] = lanes[k]",
            "k < n; ++k) to[k] = lanes[k]",
        ),
        *("cpu/conv/few_inputs_kernel.cpp", FEW_INPUTS, MEMORY, "runtime error: index"),
    ),
    "a whole register is stored for a part": Mistake(
        *("cpu/conv/few_inputs_kernel.cpp", "store_first(to.y + at, y, n)", "store(to.y + at, y)"),
        *("cpu/conv/few_inputs_kernel.cpp", FEW_INPUTS, MEMORY, "heap-buffer-overflow"),
    ),
    "scratch is a row too small": Mistake(
        *("cpu/conv/few_outputs_kernel.cpp", "/ conv.stride + 2;", "/ conv.stride - 1;"),
        *("cpu/conv/few_outputs_kernel.cpp", FEW_OUTPUTS_WIDE, MEMORY, "heap-buffer-overflow"),
    ),
    "threads share a buffer": Mistake(
        *(
            "cpu/conv/small_channels_run.cpp",
            "float* products = scratch",
            "static float* products = scratch",
        ),
        *("cpu/conv/small_channels_run.cpp", FEW_OUTPUTS_WIDE, RACES, "data race"),
    ),
    "a counter of units is not atomic": Mistake(
        *("cpu/dynamic_for.h", "std::atomic<int64_t> next{0};"),
        "struct { int64_t at = 0; int64_t fetch_add(int64_t n) { return (at += n) - n; } } next;",
        *("cpu/conv/small_channels_run.cpp", FEW_OUTPUTS_WIDE, RACES, "data race"),
    ),
}
PROGRAM = """
import torch, vaekernels as vk
from vaekernels.backends import extension
extension.load().set_cpu_capability("baseline")
torch.set_num_threads(3)
for _ in range(3):
    {call}
print("done")
"""


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported(
    mistake: Mistake, library_of: Callable[[str], Path], tmp_path: Path
) -> None:
    original = library_of(mistake.sanitizer)
    edit = (mistake.file, mistake.old, mistake.new, mistake.source)
    package = build.package(build.library_with_mistake(tmp_path, original, *edit))
    status, report = build.run(package, mistake.sanitizer, "-c", PROGRAM.format(call=mistake.call))
    assert status != 0, report[-2000:]
    assert mistake.report in report, report[-4000:]
