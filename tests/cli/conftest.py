from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from vaekernels.cli import app


@pytest.fixture(scope="session")
def invoke():
    """Run ``vaekernels`` with these words in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """50 images of 8 x 8 with labels."""
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (50, 8, 8), dtype=np.uint8)
    images[:, 2:5, 2:5] = 255
    np.savez(path, x_train=images, y_train=np.arange(50) % 5)
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory, invoke, data) -> Path:
    """A trained model."""
    path = tmp_path_factory.mktemp("runs") / "run"
    options = "--hidden 4 --latent-dim 3 --epochs 2 --batch 16 --seed 2 --device cpu"
    result = invoke("train", data, "--out", path, *options.split())
    assert result.exit_code == 0, result.output
    return path
