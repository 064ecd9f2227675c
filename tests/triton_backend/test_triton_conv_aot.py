"""The resource gate of the convolutions: matrix units fed by the copy engine, nothing spilled."""

from __future__ import annotations

import pytest
from test_triton_aot import compiled

AROUND = r"pad|pack|unpack|merge|finish"
SHARED = 227 * 1024  # bytes that a block has on sm_90; on sm_80 and sm_89 less
LIMITS = {"sm_80": 163 * 1024, "sm_89": 99 * 1024}


def check_nothing_is_spilled(reports, shared: int) -> None:
    assert reports
    for name, report in reports.items():
        assert report.stack == 0, name
        assert report.count("LDL") == report.count("STL") == 0, name
        assert report.shared <= shared, name


def check_sm90(reports) -> None:
    check_nothing_is_spilled(reports, SHARED)
    for name, report in reports.items():
        if "descriptors" in name:
            assert report.count("UTMALDG") > 0, name
            assert "projection" in name or report.count("LDGSTS") == 0, name
            # Plain float32 has no matrix unit.
            plain = "ieee" in name and name.endswith("fp32")
            assert (report.count("HGMMA") == 0) == plain, name
            assert report.count("HMMA") == 0, name
        elif "pad" in name:
            assert report.count("STG", "128") == report.count("STG"), name
        if "projection" in name:  # its pixels are copied as they are, past the registers
            assert report.count("LDGSTS", "128") == report.count("LDGSTS") > 0, name
        if "pixels" in name:
            assert report.count("LDG", "128") == report.count("LDG"), name


def test_sm90_resources_and_opcodes() -> None:
    kernels = (
        r"^conv3x3 (128x(256x64|128x32) descriptors|filters 128.*descr|pad pixels|pack"
        r"|projection.*bf16)"
    )
    check_sm90(compiled("sm_90", kernels))


def test_sm80_resources() -> None:
    check_nothing_is_spilled(
        compiled("sm_80", r"^conv3x3 128x128x(64|32) pointers"), LIMITS["sm_80"]
    )


@pytest.mark.slow
def test_sm90_every_configuration() -> None:
    check_sm90(compiled("sm_90", rf"conv.*(descriptors|{AROUND})"))


@pytest.mark.slow
@pytest.mark.parametrize("target", LIMITS)
def test_every_configuration_of_older_devices(target: str) -> None:
    reports = compiled(target, rf"conv.*(pointers|{AROUND})")
    check_nothing_is_spilled(reports, LIMITS[target])
    for name, report in reports.items():
        assert (report.count("HMMA") > 0) == ("pointers" in name), name
