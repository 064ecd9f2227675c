"""Tables of README and docs contain the committed records and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import readme_tables
from benchmarks.gpu.targets import Missing, Target
from vaekernels.bench import conv, models

MACHINE = {"cpu": "c", "threads": 2, "cpu_capability": "avx2", "torch": "2"}
ROW = {"op": "o", "case": "1 x 2", "error": 1e-6, "eager_error": 2e-6}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    (tmp_path / "cpu").mkdir()
    return tmp_path / "cpu"


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text(json.dumps({"machine": MACHINE, "rows": rows}))


def test_every_group_has_a_description() -> None:
    assert set(readme_tables.CONV) == set(conv.GROUPS)


@pytest.mark.parametrize("file", readme_tables.TABLES)
def test_a_table_without_its_record_is_empty(results: Path, file: str) -> None:
    tables = [f"<!-- table:{name} -->\nold\n<!-- end -->" for name in readme_tables.TABLES[file]]
    text = readme_tables.render("\n\n".join(tables), file)
    assert "old" not in text
    assert text.count("<!-- end -->") == len(tables)
    assert readme_tables.render(text, file) == text


def test_a_missing_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table named headline"):
        readme_tables.render("no tables", "README.md")


def test_headline(results: Path) -> None:
    means = {"rsample_kl forward+backward": 2.0, "losses forward+backward": 3.0}
    latent = {"machine": MACHINE, "rows": [], "geometric_means": means}
    (results / "latent.json").write_text(json.dumps(latent))
    groups = readme_tables.HEADLINE_CONVOLUTIONS.values()
    rows = [{**ROW, "group": group, "ratio": ratio} for group in groups for ratio in (2.0, 8.0)]
    _write(results / "conv.json", rows)
    _write(results / "models.json", [{"model": "VAE", "batch": 8, "ratio": 1.5}])
    names = readme_tables.HEADLINE_AUTOENCODERS
    assert readme_tables.headline() is None  # a record is missing
    _write(results / "autoencoders.json", [{"model": name, "ratio": 2.5} for name in names])
    lines = (readme_tables.headline() or "").splitlines()
    assert lines[0].startswith("c, 2 threads, avx2, torch 2, float32;")
    assert lines[4] == "| `vk.rsample_kl`, forward and backward | **2.00x** | eager PyTorch |"
    assert [line.count("**4.00x**") for line in lines[6:9]] == [1, 1, 1]
    assert lines[9].startswith("| training step: VAE, batch 8 | **1.50x** |")
    assert lines[-1].startswith(f"| {names[-1]} | **2.50x** |")
    other = {**MACHINE, "cpu": "another"}
    (results / "latent.json").write_text(json.dumps({**latent, "machine": other}))
    with pytest.raises(ValueError, match="different machines"):
        readme_tables.headline()


def test_conv(results: Path) -> None:
    rows = [{**ROW, "group": "upsample", "ratio": ratio} for ratio in (2.0, 8.0)]
    _write(results / "conv.json", [*rows, {**ROW, "group": "odd", "ratio": 1.5}])
    lines = (readme_tables.conv() or "").splitlines()
    assert "| 2 | **4.00x** | 2.00x | 8.00x | 1.0e-06 | 2.0e-06 |" in lines[-2]
    assert lines[-1].startswith("| odd channels")
    _write(results / "conv.json", [{**ROW, "group": "odd", "ratio": None, "wrong": "far off"}])
    with pytest.raises(ValueError, match="far off"):
        readme_tables.conv()


def test_models(results: Path) -> None:
    times = {"eager_nchw_us": 4e5, "eager_channels_last_us": 3e5, "ours_us": 1.5e5}
    row = {**ROW, **times, "compile_us": None, "ratio": 2.0, "batch": 64}
    _write(results / "models.json", [{**row, "model": models.DEMO.name}])
    line = (readme_tables.models() or "").splitlines()[-1]
    assert ", batch 64 | 400.0 ms | 300.0 ms | - | 150.0 ms | **2.00x** |" in line


def test_autoencoders(results: Path) -> None:
    times = {"eager_nchw_us": 4e5, "eager_channels_last_us": 3e5, "mnn_us": 2e5, "ours_us": 1e5}
    row = {**ROW, **times, "model": "TAEF2 decode", "ratio": 3.0, "errors": {"mnn": 1e-3}}
    _write(results / "autoencoders.json", [row])
    line = (readme_tables.autoencoders() or "").splitlines()[-1]
    assert line.startswith("| TAEF2 decode | 400.0 ms | 1.33x | - | - | - | 2.00x | - | 4.00x |")
    assert line.endswith("| **3.00x** | 1.0e-06 | 2.0e-06 | 1.0e-03 |")


def test_gpu(results: Path) -> None:
    assert readme_tables.gpu() == "No GPU has been measured yet."
    machine = {"name": "machine", "gpu": "a card", "cuda": "13", "torch": "2", "triton": "3"}
    goals = [
        Target(1, "decode", 4.5, 5.8, "x", lambda _: 5.123),
        Target(3, "decode 1024", 22.0, 16.5, "ms", lambda _: 23.0, "most"),
        Target(11, "argmin", 100.0, None, "%", _missing),
    ]
    record = {"commit": "abc", "phases": {"environment": {"rows": [machine]}}}
    record["goals"] = [goal.judge(record) for goal in goals]
    (results / "gpu_suite.json").write_text(json.dumps(record))
    lines = readme_tables.gpu().splitlines()
    assert lines[0].startswith("a card, CUDA 13, torch 2, Triton 3, bfloat16, commit abc;")
    assert lines[-3:] == [
        "| decode | at least 4.5 x | **5.123 x** | yes |",
        "| decode 1024 | at most 22 ms | **23 ms** | no |",
        "| argmin | at least 100 % | **-** | not run |",
    ]
    (results / "gpu_suite.json").write_text(json.dumps({"phases": {}, "goals": []}))
    with pytest.raises(ValueError, match="has no machine"):
        readme_tables.gpu()


def _missing(record: dict) -> float:
    raise Missing("not run")
