"""TAEF2's weights and the Kodak photographs, where they are; and the committed record."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks import taef2_kodak
from vaekernels.models import to_taesd

DATA = Path(os.environ.get("VAEKERNELS_TEST_DATA", taef2_kodak.DATA))
RECORD = Path(taef2_kodak.__file__).parent / "results" / "cpu" / "taef2_kodak.json"


@pytest.fixture(scope="module")
def models() -> taef2_kodak.Models:
    if not (DATA / "taef2").is_dir():
        pytest.skip(f"{DATA / 'taef2'} is absent")
    return taef2_kodak.Models(DATA / "taef2")


def _photograph(size: int = 160) -> Tensor:
    path = DATA / "kodak" / "kodim20.png"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return taef2_kodak.load(path)[..., 200 : 200 + size, 300 : 300 + size]


def test_psnr_is_that_of_plain_pytorch(models: taef2_kodak.Models) -> None:
    row, reconstruction = taef2_kodak.measure("kodim20", _photograph(), models)
    assert abs(row["psnr"] - row["psnr_plain"]) <= 0.01
    assert row["largest_difference"] < 1e-4
    assert row["psnr"] > 20.0
    assert reconstruction.shape == (1, 3, 160, 160)


def test_names_are_those_of_the_files(models: taef2_kodak.Models) -> None:
    assert models.ours.config.pooled_bottleneck
    assert models.ours.config.latent_channels == 32
    for half, tensors in zip(models.plain, to_taesd(models.ours.state_dict()), strict=True):
        half.load_state_dict(tensors)


def test_within_a_memory_bound(models: taef2_kodak.Models) -> None:
    x = 2 * _photograph(128) - 1
    whole = models.ours.reconstruct(x)
    for bound in ("13MiB", "9MiB"):
        assert models.ours.plan_decode((1, 32, 16, 16), bound).work > 1.0
        assert (models.ours.reconstruct(x, max_memory=bound) - whole).abs().max() <= 1e-4


def test_the_record_keeps_its_promise() -> None:
    record = json.loads(RECORD.read_text())
    assert len(record["rows"]) == 24
    for row in record["rows"]:
        assert abs(row["psnr"] - row["psnr_plain"]) <= record["difference_db"]
    assert taef2_kodak._PICTURE.stat().st_size < 500_000
