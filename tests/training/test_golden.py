"""``vaekernels train`` ends in the weights of a loop written by hand, for each of its options."""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.training import golden
from vaekernels.cli import app
from vaekernels.models import VAE
from vaekernels.training import RunFolder

# Each case changes one option, or those that mean something only together.
CASES = {
    "defaults": {},
    "hidden": {"hidden": (5,)},
    "latent_dim": {"latent_dim": 5},
    "epochs": {"epochs": 1},
    "batch": {"batch": 11},
    "lr": {"lr": 0.004},
    "beta": {"beta": 4.0},
    "kl_warmup": {"beta": 2.0, "kl_warmup": 1.5},
    "free_bits": {"free_bits": 0.02, "beta": 8.0},
    "grad_clip": {"grad_clip": 5.0},
    "heldout": {"heldout": 0.3},
    "seed": {"seed": 5},
    "bf16": {"amp": "bf16"},
    "fp16": {"amp": "fp16"},
    "fp16_clipped": {"amp": "fp16", "grad_clip": 5.0},
    "large_seed": {"seed": 2**62 + 12345},
    "mlp": {"backbone": "mlp", "hidden": (7, 5)},
    "linear": {"backbone": "mlp", "hidden": ()},
    "silu": {"activation": "silu"},
    "leaky_relu": {"activation": "leaky_relu"},
    "tanh": {"activation": "tanh"},
    "gaussian": {"likelihood": "gaussian", "scale": 0.5},
    "gaussian_learned": {"likelihood": "gaussian", "scale": "learned", "lr": 0.01},
    "laplace": {"likelihood": "laplace", "scale": 0.3},
    "laplace_learned": {"likelihood": "laplace", "scale": "learned", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "lr": 0.01},
    "nadam": {"optimizer": "nadam"},
    "radam": {"optimizer": "radam"},
    "adagrad": {"optimizer": "adagrad", "lr": 0.01},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.5},
    "sgd": {"optimizer": "sgd", "lr": 1e-4},
    "momentum": {"optimizer": "sgd", "lr": 1e-4, "momentum": 0.9},
    "weight_decay": {"weight_decay": 0.1},
    "cosine": {"schedule": "cosine"},
    "linear_schedule": {"schedule": "linear"},
    "lr_warmup": {"lr_warmup": 1.6},
    "warmup_and_cosine": {"lr_warmup": 1.6, "schedule": "cosine"},
    "ema": {"ema": 0.9, "lr": 0.01},
    "accumulate": {"accumulate": 3, "free_bits": 0.02, "beta": 8.0},
    "iwae": {"objective": "iwae"},
    "importance_samples": {"objective": "iwae", "importance_samples": 2},
    "all_of_the_optimizer": {
        "optimizer": "rmsprop",
        "momentum": 0.5,
        "schedule": "linear",
        "lr_warmup": 1.6,
        "ema": 0.8,
        "accumulate": 2,
        "grad_clip": 20.0,
    },
    "all": {
        "beta": 3.0,
        "kl_warmup": 2.0,
        "free_bits": 0.01,
        "grad_clip": 20.0,
        "seed": 9,
        "batch": 7,
        "heldout": 0.2,
        "lr": 0.003,
        "activation": "silu",
        "likelihood": "gaussian",
        "scale": "learned",
    },
}
# An option that is ignored moves the weights by 10 times as much or more, as is checked below.
TOLERANCE = 1e-5
# The options that a step could ignore: case and option.
OPTIONS = {
    "lr": "lr",
    "beta": "beta",
    "kl_warmup": "kl_warmup",
    "free_bits": "free_bits",
    "grad_clip": "grad_clip",
    "seed": "seed",
    "bf16": "amp",
    "fp16": "amp",
    "batch": "batch",
    "heldout": "heldout",
    "silu": "activation",
    "leaky_relu": "activation",
    "tanh": "activation",
    "gaussian": "scale",
    "laplace": "scale",
    "adamw": "optimizer",
    "nadam": "optimizer",
    "radam": "optimizer",
    "adagrad": "optimizer",
    "rmsprop": "optimizer",
    "sgd": "optimizer",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "cosine": "schedule",
    "linear_schedule": "schedule",
    "lr_warmup": "lr_warmup",
    "ema": "ema",
    "accumulate": "accumulate",
    "iwae": "objective",
    "importance_samples": "importance_samples",
}
# Not numbers of the training step; where each is tested instead.
ELSEWHERE = {
    "image_size": "test_image_size",
    "device": "test_distributed.py",
    "resume": "test_loop.py",
    "overwrite": "test_loop.py",
    "tensorboard": "test_settings_file.py",
    "config": "test_settings_file.py",
    "model": "test_new_kind.py",
    **dict.fromkeys(("background", "strict", "lazy", "workers"), "../data/test_lazy.py"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Waking a second thread takes longer than these images need."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images() -> np.ndarray:
    """40 images of 8 x 8: bright squares at random places."""
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 60, (40, 8, 8), dtype=np.uint8)
    for image in pixels:
        top, left = generator.integers(0, 5, 2)
        image[top : top + 3, left : left + 3] = 255
    return pixels


def run(tmp_path, array, options, *more):
    """``vaekernels train`` with these options."""
    np.savez(tmp_path / "a.npz", images=array)
    words = ["train", tmp_path / "a.npz", "--out", tmp_path / "run", "--device", "cpu", *more]
    for name, value in asdict(options).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return RunFolder(tmp_path / "run")


def assert_golden(folder, expected):
    got = load_file(folder.path / "model.safetensors")
    assert distance(got, expected.weights) < TOLERANCE
    for record, right in zip(folder.metrics(), expected.history, strict=True):
        assert {name: record[name] for name in right} == pytest.approx(right, rel=1e-5, abs=1e-6)


def distance(first, second):
    """The largest difference of two weights."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_weights_and_history_are_those_of_a_loop_written_by_hand(tmp_path, changes):
    options = golden.Options(**changes)
    expected = golden.train(torch.from_numpy(images())[:, None], options)
    assert_golden(run(tmp_path, images(), options), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name in OPTIONS])
def test_the_case_of_an_option_depends_on_it(name):
    pixels = torch.from_numpy(images())[:, None]
    options = golden.Options(**CASES[name])
    default = getattr(golden.Options(), OPTIONS[name])
    got = golden.train(pixels, options)
    ignored = golden.train(pixels, replace(options, **{OPTIONS[name]: default}))
    assert distance(got.weights, ignored.weights) > 10 * TOLERANCE


def test_every_option_of_the_command_has_a_case():
    command = next(c for c in app.registered_commands if c.callback.__name__ == "train")
    names = set(inspect.signature(command.callback).parameters) - {"ctx", "data", "out"}
    covered = {name for changes in CASES.values() for name in changes} | ELSEWHERE.keys()
    assert {name.replace("warmup_epochs", "warmup") for name in names} == covered


def test_initial_weights_are_those_of_the_seed(tmp_path):
    for seed in (0, 5):
        options = golden.Options(seed=seed, epochs=1, lr=1e-30)  # no step that shows in float32
        folder = run(tmp_path, images(), options, *(["--overwrite"] if seed else []))
        expected = golden.train(torch.from_numpy(images())[:, None], options).initial
        assert distance(load_file(folder.path / "model.safetensors"), expected) == 0


def test_image_size(tmp_path):
    options = golden.Options(hidden=(4,), epochs=1)
    cropped = images()[:, None, :, 2:6]  # the centre, without any resizing
    folder = run(tmp_path, images(), options, "--image-size", "8x4")
    assert_golden(folder, golden.train(torch.from_numpy(cropped), options))


@pytest.mark.parametrize("amp", golden.AMP)
def test_a_step_runs_under_autocast(tmp_path, monkeypatch, amp):
    seen = []
    encode = VAE.encode

    def spy(self, x):
        enabled = torch.is_autocast_enabled("cpu")
        seen.append((self.training, enabled and torch.get_autocast_dtype("cpu")))
        return encode(self, x)

    monkeypatch.setattr(VAE, "encode", spy)
    run(tmp_path, images(), golden.Options(amp=amp, epochs=1))
    # Evaluation is in the weights' own precision.
    assert set(seen) == {(True, golden.AMP[amp]), (False, False)}
