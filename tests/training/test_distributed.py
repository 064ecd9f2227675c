"""Two processes under torchrun train as one does with the same global batch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from vaekernels.cli import app
from vaekernels.training import RunFolder
from vaekernels.training.distributed import World, choose_device

OPTIONS = (
    "--hidden 4 --latent-dim 3 --epochs 2 --batch 7 --lr 0.01 --heldout 0.25 --seed 3 --device cpu"
)


@pytest.mark.parametrize(
    "more",
    [
        "",
        pytest.param(
            "--accumulate 3 --ema 0.5 --optimizer adamw --schedule cosine", marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_train_as_one(images, tmp_path, more):
    # 29 training images in batches of 7: the processes get 4 and 3, and the last batch of 1
    # leaves one of them without an image.
    data = tmp_path / "39.npz"
    np.savez(data, images=images.images[:39].numpy())
    options = ["train", str(data), *OPTIONS.split(), *more.split(), "--out"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert CliRunner().invoke(app, [*options, str(one)]).exit_code == 0
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m vaekernels.cli"
    result = subprocess.run(
        [sys.executable, *launch.split(), *options, str(two)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    expected, got = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5)
    first, second = RunFolder(one).metrics(), RunFolder(two).metrics()
    assert len(second) == 2
    for name in ("loss", "nll", "kl", "heldout_elbo"):
        assert second[-1][name] == pytest.approx(first[-1][name], rel=1e-4)


def test_shares_of_a_batch():
    batch = torch.arange(5)
    assert [World(rank, 2).share(batch).tolist() for rank in range(2)] == [[0, 2, 4], [1, 3]]
    assert World().share(batch).tolist() == batch.tolist()


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N; got 'tpux'"):
        choose_device("tpux")
    count = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"torch finds {count} CUDA devices"):
        choose_device(f"cuda:{count}")
