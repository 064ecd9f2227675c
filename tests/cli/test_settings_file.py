"""``train --config run.toml`` and ``--tensorboard``."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from vaekernels.training import RunFolder

FILE = """
[model]
latent_dim = 3
hidden = [4]

[run]
epochs = 1
device = "cpu"

[data]
batch = 16

[optim]
optimizer = "sgd"
lr = 1e-4
momentum = 0.9

[schedule]
schedule = "linear"

[objective]
beta = 2
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(FILE)
    return path


def stored(folder):
    settings = RunFolder(folder).settings()
    return {**settings["model"], **settings["train"]}


def test_settings_of_a_file_and_options_before_them(invoke, data, file, tmp_path):
    out = tmp_path / "run"
    result = invoke("train", data, "--out", out, "--config", file, "--lr", 2e-4, "--hidden", 5)
    assert result.exit_code == 0, result.output
    got = stored(out)
    expected = {"latent_dim": 3, "hidden": [5], "epochs": 1, "batch": 16, "optimizer": "sgd"}
    expected |= {"lr": 2e-4, "momentum": 0.9, "schedule": "linear", "beta": 2, "ema": 0.0}
    assert {name: got[name] for name in expected} == expected


def test_an_option_with_its_default_beats_the_file(invoke, data, file, tmp_path):
    out = tmp_path / "run"
    words = ["--config", file, "--optimizer", "adam", "--momentum", 0, "--latent-dim", 16]
    assert invoke("train", data, "--out", out, *words).exit_code == 0
    assert (stored(out)["optimizer"], stored(out)["latent_dim"]) == ("adam", 16)


def test_resume_takes_the_file_before_the_stored_settings(invoke, data, tmp_path):
    out, file = tmp_path / "run", tmp_path / "more.toml"
    words = "--hidden 4 --latent-dim 3 --epochs 1 --batch 16 --device cpu"
    assert invoke("train", data, "--out", out, *words.split()).exit_code == 0
    file.write_text("[run]\nepochs = 2\n")
    assert invoke("train", data, "--out", out, "--resume", "--config", file).exit_code == 0
    assert len(RunFolder(out).metrics()) == 2
    file.write_text("[optim]\nlr = 0.5\n")
    result = invoke("train", data, "--out", out, "--resume", "--config", file)
    assert "was started with lr 0.001; --resume cannot go on with 0.5" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim\n", "run.toml: expected TOML; "),
        ("x = " + 3000 * "[" + 3000 * "]", "run.toml: expected TOML; "),
        ("epochs = 3", "run.toml: tables must be among model, run, data, optim, schedule"),
        ("optim = 3", "run.toml: expected a table [optim]; got 3"),
        ("[optimizer]\nlr = 1", "objective; got optimizer"),
        ("[optim]\nlearning_rate = 1", "run.toml: keys of [optim] must be among optimizer, lr, "),
        ("[optim]\nepochs = 3", "got epochs"),
        ("[model]\nlatents = 3", "run.toml: keys of [model] must be among"),
        ("[model]\nimage_shape = [1, 8, 8]", "got image_shape"),
        ("[model]\nlatent_dim = 0", "latent_dim must be at least 1; got 0"),
        ('[model]\nkind = "gan"', "model must be one of vae, autoencoder_kl, autoencoder_tiny"),
        ("[model]\nkind = 3", "model must be one of"),
        ("[model]\nkind = [3]", "model must be one of"),
        ('[optim]\nlr = "fast"', "lr must be a number; got 'fast'"),
        ("[optim]\nlr = nan", "lr must be finite and positive; got nan"),
        ("#" * 2**20 + "\n\n", "run.toml: expected a TOML file of at most 1,048,576 bytes"),
    ],
)
def test_files_that_are_refused(invoke, data, file, tmp_path, text, message):
    file.write_text(text)
    result = invoke("train", data, "--out", tmp_path / "run", "--config", file)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_missing_file(invoke, data, tmp_path):
    result = invoke("train", data, "--out", tmp_path / "run", "--config", tmp_path / "no.toml")
    assert result.exit_code == 2
    assert "no.toml" in result.stderr


SMALL = "--hidden 4 --latent-dim 3 --batch 16 --device cpu"


def test_tensorboard_gets_every_epoch(invoke, data, tmp_path, monkeypatch):
    written, opened = {}, []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            opened.append((folder, purge_step))

        def add_scalar(self, tag, value, step):
            written[tag, step] = value

        def flush(self):
            pass

        def close(self):
            opened.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    out = tmp_path / "run"
    words = ["train", data, "--out", out, "--tensorboard"]
    assert invoke(*words, *SMALL.split(), "--epochs", 1).exit_code == 0
    assert invoke(*words, "--resume", "--epochs", 3).exit_code == 0
    folder = str(out / "tensorboard")
    assert opened == [(folder, 3), "closed", (folder, 6), "closed"]
    history = RunFolder(out).metrics()
    for record in history:
        assert written["elbo/train", record["step"]] == record["elbo"]
        assert written["elbo/heldout", record["step"]] == record["heldout_elbo"]
    assert len({step for _, step in written}) == len(history) == 3


def test_tensorboard_that_is_not_installed(invoke, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = ["train", data, "--out", tmp_path / "run", "--tensorboard", *SMALL.split()]
    result = invoke(*words)
    assert result.exit_code == 2
    assert "pip install 'vaekernels[tensorboard]'" in result.stderr
    assert not (tmp_path / "run").exists()
