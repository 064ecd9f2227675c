"""Bad input: one line on stderr, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

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
        ("--model gan", "model must be one of vae, autoencoder_kl, autoencoder_tiny; got 'gan'"),
        ("--optimizer lion", "optimizer must be one of adam, adamw, nadam, radam, adagrad"),
        ("--momentum 0.9", "momentum must be 0 for adam; rmsprop and sgd have it; got 0.9"),
        ("--schedule step", "schedule must be one of constant, cosine, linear; got 'step'"),
        ("--ema 1", "ema must be less than 1; got 1.0"),
        ("--objective iwae --beta 2", "beta must be 1.0 for the objective iwae"),
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
    assert_refused(invoke("train", "", "--out", out), "data must be", "an empty name")
    assert not out.exists()


@pytest.mark.parametrize("command", ["sample", "encode", "reconstruct", "traverse"])
def test_weights_that_are_not_finite(invoke, run, data, tmp_path, command):
    broken = shutil.copytree(run, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, broken / "model.safetensors")
    out = tmp_path / ("z.safetensors" if command == "encode" else "z.png")
    words = [command, broken] + ([data] if command in ("encode", "reconstruct") else [])
    assert_refused(invoke(*words, "--out", out), "broken", f"{name} is not finite")
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
        ("traverse RUN --out a.png --image 3", "--image 3 needs DATA"),
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


HUGE = "1" + 20 * "0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device meta", "device must be auto, cpu, cuda or cuda:N; got 'meta'"),
        ("--device mps", "device must be auto, cpu, cuda or cuda:N; got 'mps'"),
        ("--device xla:1", "device must be auto, cpu, cuda or cuda:N; got 'xla:1'"),
        ("--device cpu:3", "device must be auto, cpu, cuda or cuda:N; got 'cpu:3'"),
        ("--hidden 1000000000", "hidden (1000000000,)"),
        ("--hidden 2000000000,2000000000", "hidden (2000000000, 2000000000)"),
        (f"--hidden {HUGE}", "--hidden must be at most 2147483647"),
        ("--hidden 9" + 5000 * "9", "--hidden must be at most 2147483647"),
        ("--backbone mlp --hidden " + ",".join(["2"] * 1001), "at most 1000 entries; got 1001"),
        ("--latent-dim 100000000000", "latent_dim must be at most 2147483647; got 100000000000"),
        ("--latent-dim 2147483647", "latent_dim 2147483647 needs"),
        ("--latent-dim 1e11", "--latent-dim"),
        ("--batch x", "--batch"),
        ("--no-such-option", "--no-such-option"),
        ("--free-bits 1e308", "free_bits must be at most 3.4e+38, what float32 holds; got 1e+308"),
        ("--beta 1e308", "beta must be at most 3.4e+38"),
        ("--kl-warmup 1e308", "kl_warmup_epochs must be at most 3.4e+38"),
        ("--scale 1e308 --likelihood gaussian", "scale must be at most 3.4e+38"),
        ("--grad-clip 1e308", "grad_clip must be at most 3.4e+38"),
        ("--lr 1e308", "lr must be at most 3.4e+38"),
        (f"--batch {HUGE}", "batch must be at most 2147483647"),
        (f"--epochs {HUGE}", "epochs must be at most 2147483647"),
        (f"--seed {HUGE}", "seed must be in [0, 2**63)"),
        ("--image-size 1000000", "images of 1000000 x 1000000 pixels needs"),
        (f"--image-size {HUGE}", "--image-size must be at most 2147483647"),
        ("--image-size 2147483647", "needs"),
    ],
)
def test_train_refuses_what_is_too_large(invoke, data, tmp_path, options, message):
    out = tmp_path / "run"
    assert_refused(invoke("train", data, "--out", out, *options.split()), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample RUN --out a.png --device meta", "device must be auto, cpu, cuda"),
        ("encode RUN DATA --out a.safetensors --device mps", "device must be auto, cpu, cuda"),
        (f"sample RUN --out a.png -n {HUGE}", "-n must be at most 2147483647"),
        ("sample RUN --out a.png -n 2147483647", "-n: a grid of 2147483647 images needs"),
        (f"sample RUN --out a.png --columns {HUGE}", "--columns must be at most 2147483647"),
        (f"sample RUN --out a.png --seed {HUGE}", "seed must fit into 64 bits"),
        (f"traverse RUN --out a.png --values {HUGE}", "--values must be at most 2147483647"),
        ("traverse RUN --out a.png --values 2147483647", "--values: a grid of 6442450941 images"),
        (f"traverse RUN --out a.png --dims {HUGE}", "--dims must be at most 2147483647"),
        ("traverse RUN --out a.png --extent 1e308", "--extent must be at most 3.4e+38"),
        (f"encode RUN DATA --out a.safetensors --batch {HUGE}", "--batch must be at most"),
        (f"reconstruct RUN DATA --out a.png -n {HUGE}", "-n must be at most 2147483647"),
        (f"bench latent --threads {HUGE}", "--threads must be at most 2147483647"),
        ("bench latent --device meta", "device must be auto, cpu, cuda or cuda:N; got 'meta'"),
        ("bench latent --device mps", "device must be auto, cpu, cuda or cuda:N; got 'mps'"),
        ("demo --device meta --out d", "device must be auto, cpu, cuda or cuda:N; got 'meta'"),
    ],
)
def test_other_commands_refuse_what_is_too_large(
    invoke, run, data, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": run, "DATA": data}
    assert_refused(invoke(*(places.get(word, word) for word in words.split())), message)
    assert list(tmp_path.iterdir()) == []


def test_want_of_memory_is_one_line(invoke, run, tmp_path, monkeypatch):
    # More than any machine has, past the check.
    monkeypatch.setattr("vaekernels.cli._options.check_room", lambda *_: None)
    result = invoke("sample", run, "--out", tmp_path / "a.png", "-n", 2**31 - 1)
    assert_refused(result, "allocate")


def nested(depth):
    return "[" * depth + "]" * depth


BROKEN_JSON = {
    "empty": ("", " JSON"),
    "cut": ('{"a": ', " JSON"),
    "bytes": ("\udcff\udcfe", " JSON"),
    "nested": ('{"latent_dim": ' + nested(100_000) + "}", "nested too deep"),
    "digits": ('{"latent_dim": ' + "9" * 10_000 + "}", " JSON"),
    "list": ("[1]", "expected a JSON object; got list"),
    "large": ("{" + " " * 2**20 + "}", "expected a JSON file of at most"),
}


@pytest.mark.parametrize("name", ["config.json", "train_config.json"])
@pytest.mark.parametrize("broken", BROKEN_JSON)
def test_broken_json_of_a_run(invoke, run, data, tmp_path, name, broken):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    text, message = BROKEN_JSON[broken]
    (copy / name).write_bytes(text.encode(errors="surrogateescape"))
    if name == "config.json":
        result = invoke("sample", copy, "--out", tmp_path / "a.png")
    else:
        result = invoke("train", data, "--out", copy, "--resume")
    assert_refused(result, str(copy / name), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 10**11}, "latent_dim must be at most 2147483647"),
        ({"latent_dim": 2**31 - 1, "hidden": [2**31 - 1]}, "sizes in config.json are too large"),
        ({"latent_dim": 2**31 - 1}, "expected shape"),
        ({"latent_dim": {"a": [1]}}, "latent_dim must be an integer"),
        ({"hidden": [[4]]}, "hidden[0] must be an integer"),
        ({"hidden": [2] * 1001}, "hidden must have at most 1000 entries; got 1001"),
        ({"image_shape": [1, 10**9, 10**9]}, "config.json"),
        ({"scale": 1e400}, "scale must be positive and finite"),
        ({"scale": 10**400, "likelihood": "gaussian"}, "scale must be at most 3.4e+38"),
        ({"scale": 1e300, "likelihood": "gaussian"}, "scale must be at most 3.4e+38"),
        ({"_class_name": ["VAE"]}, "expected _class_name among VAE, "),
    ],
)
def test_values_of_a_config_that_cannot_be(invoke, run, tmp_path, change, message):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, **change}))
    result = invoke("sample", copy, "--out", tmp_path / "a.png")
    assert_refused(result, str(copy), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": []}, "got list for train"),
        ({"model": 3}, "got int for model"),
        ({"data": None}, "got NoneType for data"),
        ({"train": {"epochs": "many"}}, "epochs must be an integer; got 'many' (str)"),
        ({"train": {"epochs": True}}, "epochs must be an integer; got True"),
        ({"train": {"lr": 10**400}}, "lr must be at most 3.4e+38"),
        ({"train": {"lr": [1]}}, "lr must be a number; got [1]"),
        ({"train": {"amp": 16}}, "amp must be a string; got 16"),
        ({"train": {"lrate": 1}}, "unknown training settings: lrate"),
        ({"train": {"heldout": 7}}, "heldout must be between 0 and 1"),
        ({"model": {"latent_dim": 3}}, "image_shape must be given"),
        ({"model": {"image_shape": [1, 8, 8], "latent_dim": "x"}}, "latent_dim must be an integer"),
    ],
)
def test_settings_of_a_run_that_cannot_be(invoke, run, data, tmp_path, change, message):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "train_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert_refused(invoke("train", data, "--out", copy, "--resume"), str(path), message)
    result = invoke("encode", copy, data, "--out", tmp_path / "a.safetensors")
    assert_refused(result, str(path), message)
