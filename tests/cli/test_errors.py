"""Bad input: one line on stderr, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from vaekernels.training import TrainingInterrupted
from vaekernels.training.loop import _Trainer


def assert_refused(result, *parts):
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--beta -1", "beta must be finite and not negative; got -1.0"),
        ("--batch 0", "batch must be at least 1; got 0"),
        ("--epochs 0", "epochs must be at least 1; got 0"),
        ("--likelihood poisson", "likelihood must be one of bernoulli, gaussian, laplace"),
        ("--backbone resnet", "backbone must be one of conv, mlp; got 'resnet'"),
        ("--hidden 4,x", "--hidden must be positive integers such as 32,64; got '4,x'"),
        ("--hidden 2,2,2,2", "divisible by 16"),
        ("--image-size 9", "divisible by 4"),
        ("--image-size big", "--image-size must be positive integers"),
        ("--image-size 8x8x8", "--image-size must be SIZE or HEIGHTxWIDTH"),
        ("--latent-dim 0", "latent_dim must be at least 1; got 0"),
        ("--scale wide", "--scale must be a number or learned; got 'wide'"),
        ("--amp fp8", "amp must be one of off, bf16, fp16"),
        ("--device cuda:99", "device cuda:99: torch finds"),
        ("--device tpux", "device must be auto, cpu, cuda or cuda:N"),
        ("--heldout 0.001", "held-out fraction of 0.001"),
        ("--resume --overwrite", "expected --resume or --overwrite, got both"),
        ("--resume", "holds no run"),
    ],
)
def test_train_refuses(invoke, data, tmp_path, options, message):
    out = tmp_path / "run"
    assert_refused(invoke("train", data, "--out", out, *options.split()), message)
    assert list(tmp_path.iterdir()) == []


def test_data_errors(invoke, tmp_path):
    out = tmp_path / "run"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(invoke("train", empty, "--out", out), str(empty), "no image in this folder")
    (empty / "fake.png").write_text("text")
    assert_refused(invoke("train", empty, "--out", out), "fake.png", "not an image")
    assert_refused(invoke("train", tmp_path / "no.npz", "--out", out), "no.npz", "does not exist")
    assert not out.exists()


def test_existing_run_is_not_replaced(invoke, data, run):
    before = (run / "checkpoint.safetensors").read_bytes()
    assert_refused(invoke("train", data, "--out", run), str(run), "--resume", "--overwrite")
    assert (run / "checkpoint.safetensors").read_bytes() == before


def test_not_a_number_stops(invoke, data, tmp_path):
    options = "--hidden 4 --batch 8 --epochs 1 --device cpu"
    result = invoke("train", data, "--out", tmp_path / "run", "--lr", "1e30", *options.split())
    assert_refused(result, "training stopped at step 1", "--lr")


def test_no_space(invoke, data, tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "run"
    result = invoke("train", data, "--out", out, "--hidden", 4)
    assert_refused(result, f"{out}/train_config.json: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_no_space_for_a_picture(invoke, run, tmp_path, monkeypatch):
    out = tmp_path / "old.png"
    out.write_bytes(b"before")

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    assert_refused(invoke("sample", run, "--out", out), f"{out}: No space left on device")
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]


def test_interrupt_says_how_to_go_on(invoke, data, tmp_path, monkeypatch):
    def step(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_Trainer, "_step", step)
    result = invoke("train", data, "--out", tmp_path / "run", "--hidden", 4)
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    assert issubclass(TrainingInterrupted, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample RUN --out a.jpg", "--out must be a file named .png; got 'a.jpg'"),
        ("sample RUN --out a.png -n 0", "-n must be at least 1; got 0"),
        ("sample RUN --out a.png --columns 0", "--columns must be at least 1; got 0"),
        ("sample nowhere --out a.png", "run folder nowhere does not exist"),
        ("reconstruct RUN DATA --out a.png --part test", "--part must be one of all, train"),
        ("traverse RUN --out a.png --values 1", "--values must be at least 2; got 1"),
        ("traverse RUN --out a.png --extent -1", "--extent must be positive; got -1.0"),
        ("traverse RUN --out a.png --dims 0", "--dims must be at least 1; got 0"),
        ("traverse RUN DATA --out a.png --image 50", "--image must be in [0, 50); got 50"),
        ("encode RUN DATA --out a.npz", "--out must be a file named .safetensors"),
        ("encode RUN DATA --out a.safetensors --batch 0", "--batch must be at least 1; got 0"),
    ],
)
def test_other_commands_refuse(invoke, run, data, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": run, "DATA": data}
    assert_refused(invoke(*(places.get(word, word) for word in words.split())), message)
    assert list(tmp_path.iterdir()) == []


def test_images_with_other_channels(invoke, run, tmp_path):
    path = tmp_path / "colour.npz"
    np.savez(path, images=np.zeros((4, 8, 8, 3), np.uint8))
    result = invoke("encode", run, path, "--out", tmp_path / "a.safetensors")
    assert_refused(result, "3 channels", "expects 1")


def test_truncated_model(invoke, run, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((run / "config.json").read_bytes())
    weights = (run / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:100])
    result = invoke("sample", broken, "--out", tmp_path / "a.png")
    assert_refused(result, "model.safetensors")


def test_traceback_on_request_and_exit_code_of_the_process(run):
    words = [sys.executable, "-m", "vaekernels.cli"]
    command = ["sample", str(run), "--out", "a.jpg"]
    plain = subprocess.run([*words, *command], capture_output=True, text=True, check=False)
    assert plain.returncode == 2
    assert plain.stderr == "error: --out must be a file named .png; got 'a.jpg'\n"
    full = subprocess.run(
        [*words, "--traceback", *command], capture_output=True, text=True, check=False
    )
    assert full.returncode != 0
    assert "Traceback" in full.stderr


def test_tune_needs_a_gpu(invoke, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = invoke("tune", "--model", "sd")
    assert result.exit_code == 2
    assert "tune measures on a GPU, and torch finds no CUDA device" in result.stderr
