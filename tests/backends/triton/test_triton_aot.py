"""The resource gate: every shipped kernel compiled for real GPUs, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

# Configurations checked by default and, with the others, by `pytest -m slow`.
QUICK = r"(fp32|bf16) rows of 4096"
SLOW = r"fp64 rows of 4096|rows of 20"
GROUP_NORM = r"(moments|scale_shift|group_norm).* "


def compiled(target: str, match: str):
    """Reports of the configurations that ``match`` finds, by name.

    In a process of its own: this one may be interpreting.
    """
    aot = pytest.importorskip(
        "vaekernels.backends.triton.aot", reason="the package triton is missing"
    )
    try:
        aot.cuobjdump()
    except aot.DisassemblerMissingError as error:
        pytest.skip(str(error))
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "vaekernels.backends.triton.aot", "--json"]
    result = subprocess.run(
        [*command, "--target", target, "--match", match],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    reports = json.loads(result.stdout)
    return {
        item["name"]: aot.Report(**{**item, "opcodes": Counter(item["opcodes"])})
        for item in reports
    }


@pytest.fixture(scope="module")
def sm90():
    return compiled("sm_90", QUICK)


def check_resources(reports) -> None:
    """No stack and no spills; four blocks of a kernel's warps fit on a multiprocessor."""
    assert reports
    for name, report in reports.items():
        assert report.stack == 0, name
        assert report.count("LDL") == report.count("STL") == 0, name
        assert report.shared <= 8192, name
        assert report.registers <= (255 if "fp64" in name else 168), name


def test_sm90_resources_and_vector_loads(sm90) -> None:
    check_resources(sm90)
    for name, report in sm90.items():
        if not name.startswith("randn"):
            assert report.count("LDG", "128") > 0, name
            narrow = report.count("LDG") - report.count("LDG", "128")
            # Not a row: the gradient of the sum, up to two numbers, a seed, a sample id.
            # Three with a learned prior: the gradient of the sum, its mean and its log variance.
            assert narrow <= (3 if name.startswith("gaussian_kl_backward learned") else 2), name
        if name.startswith(("randn", "rsample_kl")) or "backward" in name:
            assert report.count("STG", "128") > 0, name


def test_sm90_arithmetic_is_correctly_rounded(sm90) -> None:
    """No approximate instruction, nothing flushed: what makes the bits the same everywhere."""
    for name, report in sm90.items():
        assert report.approximate == [], name


def test_sm80_compiles() -> None:
    check_resources(compiled("sm_80", r"^\w+ fp32 rows of 4096"))


@pytest.mark.slow
def test_sm90_float64_and_short_rows() -> None:
    check_resources(compiled("sm_90", SLOW))


def check_group_norm(reports) -> None:
    """Aligned images are read and written 128 bits at a time, in either layout."""
    check_resources(reports)
    for name, report in reports.items():
        if name.startswith(("merge_moments", "scale_shift", "group_norm_silu_merge")):
            continue  # a number per part or channel
        if "odd" not in name:
            assert report.count("LDG", "128") > 0, name
            # What planes have one of for all elements: scale, shift and the like.
            assert report.count("LDG") - report.count("LDG", "128") <= 4, name
            if "moments" not in name and "sums" not in name:
                assert report.count("STG") == report.count("STG", "128") > 0, name


def test_sm90_group_norm() -> None:
    reports = compiled("sm_90", GROUP_NORM + "bf16 (pixels|planes)")
    check_group_norm(reports)
    for name, report in reports.items():
        # SiLU alone, where its result is rounded to 16 bits (silu.py).
        assert set(report.approximate) <= {"ex2.approx.f32", "div.full.f32"}, name


@pytest.mark.slow
def test_sm90_group_norm_in_other_dtypes_and_odd_shapes() -> None:
    reports = compiled("sm_90", GROUP_NORM + "(fp32|fp64|bf16 odd)")
    check_group_norm(reports)
    for name, report in reports.items():
        assert report.approximate == [] or "fp32" not in name, name


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_89"])
def test_group_norm_compiles_for_older_cards(target: str) -> None:
    check_resources(compiled(target, GROUP_NORM))
