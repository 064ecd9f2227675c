"""The resource gate of the convolutions: matrix units fed by the copy engine, nothing spilled."""

from __future__ import annotations

import itertools

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


def has_matrix_unit(name: str) -> bool:
    """Whether there is one for the products; there is none for plain float32."""
    return not ("ieee" in name and name.endswith("fp32"))


def check_sm90(reports) -> None:
    check_nothing_is_spilled(reports, SHARED)
    for name, report in reports.items():
        if "descriptors" in name:
            assert report.count("UTMALDG") > 0, name
            assert "projection" in name or report.count("LDGSTS") == 0, name
            assert (report.count("HGMMA") > 0) == has_matrix_unit(name), name
            assert report.count("HMMA") == 0, name
        elif "pad" in name:
            assert report.count("STG", "128") == report.count("STG"), name
        # The pixels of a projection are copied as they are, past the registers; but for odd ones.
        if "projection" in name and "odd" not in name:
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
        multiplies = "pointers" in name and has_matrix_unit(name)
        assert (report.count("HMMA") > 0) == multiplies, name


def test_every_tile_is_compiled() -> None:
    """Whatever the shape: the tile that is found for it is one of those above."""
    configs = pytest.importorskip(
        "vaekernels.backends.triton.conv.tile_heuristics", reason="triton is missing"
    )
    from vaekernels.backends.triton import conv3x3
    from vaekernels.backends.triton.conv.aot_variants import NUMBERS

    def compiled_tile(config):
        """Way of loading, factors, alignment, epilogue and tile; a gradient's are all aligned."""
        given = config.arguments
        sides = (
            ("ROWS", "COLUMNS", "DEPTH") if "COLUMNS" in given else ("ROWS", "INPUTS", "OUTPUTS")
        )
        kind = configs.Tile if "COLUMNS" in given else configs.GradientTile
        tile = kind(*(given[side] for side in sides), config.warps, config.stages)
        aligned = given.get("channels", ":16").endswith(":16")
        factors = NUMBERS[config.name.split()[-1]].factors
        return given["DESCRIPTORS"], factors, aligned, given.get("residual") is not None, tile

    known = {
        compiled_tile(config)
        for config in conv3x3.AOT_CONFIGS
        if config.name.startswith("conv3x3 tile ")
    }
    channels = (3, 4, 8, 16, 20, 32, 40, 48, 64, 80, 96, 100, 128, 160, 192, 250, 256, 320, 512)
    found = set()
    for described, factors in itertools.product((True, False), ("bfloat16", "tf32", "float32")):
        for inputs, outputs in itertools.product(channels, repeat=2):
            depth, columns = (-(-side // 16) * 16 for side in (inputs, outputs))
            gradient = configs.gradient_tile_of(factors, depth, columns)
            found.add((described, factors, True, False, gradient))
            for epilogue, rows in itertools.product((False, True), range(4, 24)):
                key = (90 if described else 80, factors, 9, depth, outputs, 2**rows, epilogue)
                tile = configs.tile_of(configs.Key(*key), 132)
                found.add((described, factors, outputs % 16 == 0, epilogue, tile))
    assert found == known
