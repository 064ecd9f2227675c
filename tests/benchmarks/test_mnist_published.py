"""The recorded MNIST experiment, on images small enough for a test."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer

from vaekernels.training import TrainConfig, load_images

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``benchmarks/mnist_published.py``, which is no part of the package."""
    path = _REPOSITORY / "benchmarks" / "mnist_published.py"
    spec = importlib.util.spec_from_file_location("mnist_published", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> Path:
    """60 training and 20 test images of 8 x 8."""
    path = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(path, x_train=images[:60], x_test=images[60:])
    return path


def test_record(script, npz):
    config = replace(script.CONFIG, epochs=2, batch=16, device="cpu")
    record = script.experiment(load_images(npz), config, progress=False)
    assert [row["epoch"] for row in record["epochs"]] == [1, 2]
    assert record["test"] == record["epochs"][-1]["test"]
    assert record["test"] > 0
    # 64 pixels of noise cost about 64 log 2: far from the published loss of digits.
    assert record["reproduced"] is False
    assert record["data"]["train_images"] == 60
    assert record["data"]["test_images"] == 20
    assert record["model"]["hidden"] == [400]
    assert record["train_config"]["lr"] == 1e-3
    assert record["machine"]["cpu"]
    assert json.loads(json.dumps(record)) == record


def test_the_seed_decides_the_record(script, npz):
    config = replace(script.CONFIG, epochs=1, batch=16, device="cpu")
    first, again, other = (
        script.experiment(load_images(npz), replace(config, seed=seed), progress=False)["test"]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_command_writes_the_file_and_says_whether_it_holds(script, npz, tmp_path, capsys):
    out = tmp_path / "new" / "result.json"
    with pytest.raises(typer.Exit) as exit_:
        script.main(data=npz, out=out, seed=7)
    assert exit_.value.exit_code == 1
    record = json.loads(out.read_text())
    assert record["train_config"]["seed"] == 7
    assert len(record["epochs"]) == 10
    assert "published 105.56 to 105.59" in capsys.readouterr().out
    assert [file.name for file in out.parent.iterdir()] == ["result.json"]


def test_needs_test_images(script, npz, tmp_path):
    path = tmp_path / "train_only.npz"
    np.savez(path, x_train=np.zeros((10, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="expected x_test"):
        script.experiment(load_images(path), script.CONFIG, progress=False)


def test_the_committed_record_holds(script):
    """The recorded result, from the published configuration."""
    record = json.loads(
        (_REPOSITORY / "benchmarks" / "results" / "mnist_published.json").read_text()
    )
    assert record["reproduced"] is True
    assert abs(record["test"] - script.TARGET) <= script.TOLERANCE
    assert record["published"] == script.PUBLISHED
    assert len(record["epochs"]) == 10
    assert record["data"]["train_images"] == 60_000
    assert record["data"]["test_images"] == 10_000
    published = {**script.CONFIG.to_dict(), "seed": 0, "device": "cpu"}
    assert TrainConfig.from_dict(record["train_config"]).to_dict() == published
    assert record["modified"] is False
