"""One file and one line make a kind of model that every command can use."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.linear_autoencoder import LinearAutoencoder
from vaekernels.models import VAE, AutoencoderTiny, AutoencoderTinyConfig, from_pretrained
from vaekernels.models.registry import MODELS
from vaekernels.training import RunFolder

OPTIONS = "--model linear --latent-dim 3 --batch 16 --lr 0.01 --device cpu"


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(MODELS, "linear", LinearAutoencoder)


@pytest.fixture
def linear(invoke, data, tmp_path):
    result = invoke("train", data, "--out", tmp_path / "run", *OPTIONS.split(), "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert "held-out loss" in result.output
    assert "MSE" in result.output
    return tmp_path / "run"


def test_trains_with_its_own_terms(linear):
    history = RunFolder(linear).metrics()
    assert history[-1]["mse"] < history[0]["mse"]
    assert history[-1]["heldout_loss"] == pytest.approx(
        history[-1]["heldout_mse"] + history[-1]["heldout_code"]
    )
    assert history[-1]["loss"] == pytest.approx(history[-1]["mse"] + 0.1 * history[-1]["code"])
    assert history[-1]["progress"] == history[-1]["step"] - 1
    assert not {"beta", "elbo", "kl"} & history[-1].keys()
    assert RunFolder(linear).settings()["kind"] == "linear"
    assert json.loads((linear / "config.json").read_text())["_class_name"] == "LinearAutoencoder"
    assert isinstance(from_pretrained(linear), LinearAutoencoder)


def test_resumes_to_the_same_bits(invoke, data, linear, tmp_path):
    halves = tmp_path / "halves"
    for words in (["--epochs", 1, *OPTIONS.split()], ["--epochs", 3, "--resume"]):
        result = invoke("train", data, "--out", halves, *words)
        assert result.exit_code == 0, result.output
    first, second = (load_file(run / "model.safetensors") for run in (linear, halves))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_resume_keeps_the_kind(invoke, data, linear):
    result = invoke("train", data, "--out", linear, "--resume", "--model", "vae")
    assert result.exit_code == 2
    assert "was started with model 'linear'; --resume cannot go on with 'vae'" in result.stderr


def test_other_commands(invoke, data, linear, tmp_path):
    out = tmp_path / "a.png"
    for words in (["sample"], ["reconstruct", data], ["traverse", "--values", 3]):
        command, *rest = words
        result = invoke(command, linear, *rest, "--out", out)
        assert result.exit_code == 0, result.output
        out.unlink()
    result = invoke("encode", linear, data, "--out", tmp_path / "a.safetensors")
    assert result.exit_code == 2
    assert "LinearAutoencoder has no posterior" in result.stderr


def test_settings_that_the_kind_does_not_have(invoke, data, tmp_path):
    words = ["train", data, "--out", tmp_path / "run", "--model", "linear", "--hidden", "4"]
    result = invoke(*words)
    assert result.exit_code == 2
    assert (
        "settings of the model linear must be among latent_dim, noise; got hidden" in result.stderr
    )


def test_settings_of_the_kind_in_a_file(invoke, data, tmp_path):
    settings = tmp_path / "run.toml"
    settings.write_text('[model]\nkind = "linear"\nnoise = 0.5\n[run]\nepochs = 1\n')
    result = invoke("train", data, "--out", tmp_path / "run", "--config", settings)
    assert result.exit_code == 0, result.output
    assert from_pretrained(tmp_path / "run").config.noise == 0.5


@pytest.mark.parametrize("command", ["sample", "reconstruct", "traverse", "encode"])
def test_a_kind_that_cannot(invoke, data, tmp_path, command):
    config = AutoencoderTinyConfig(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    AutoencoderTiny(config).save_pretrained(tmp_path / "tiny")
    out = tmp_path / ("a.safetensors" if command == "encode" else "a.png")
    words = [command, tmp_path / "tiny"] + ([data] if command in ("encode", "reconstruct") else [])
    result = invoke(*words, "--out", out)
    assert result.exit_code == 2
    assert f"vaekernels {command} does not support AutoencoderTiny, which has no" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not out.exists()


def test_a_kind_that_cannot_be_trained(invoke, data, tmp_path):
    result = invoke("train", data, "--out", tmp_path / "run", "--model", "autoencoder_kl")
    assert result.exit_code == 2
    assert "expected a model of the kind vae, linear" in result.stderr
    assert issubclass(MODELS["vae"], VAE)
    assert not (tmp_path / "run").exists()
