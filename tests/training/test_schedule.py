"""What happens at which step is a function of the settings."""

from __future__ import annotations

import dataclasses
import math

import pytest

from vaekernels.training import TrainConfig
from vaekernels.training.config import PARTS, OptimConfig
from vaekernels.training.schedule import learning_rate, permutation, steps_per_epoch


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {0: 0.5, 399: 0.5}),
        ({"schedule": "linear"}, {0: 0.5, 20: 0.25, 30: 0.125, 39: 0.0125}),
        ({"schedule": "cosine"}, {0: 0.5, 20: 0.25, 10: 0.25 * (1 + math.sqrt(0.5))}),
        ({"lr_warmup_epochs": 0.5}, {0: 0.1, 3: 0.4, 4: 0.5, 39: 0.5}),
        ({"lr_warmup_epochs": 2, "schedule": "linear"}, {0: 0.025, 19: 0.5, 20: 0.5, 30: 0.25}),
        ({"lr_warmup_epochs": 8, "schedule": "cosine"}, {0: 0.00625, 39: 0.25}),
    ],
)
def test_learning_rate(changes, expected):
    config = TrainConfig(batch=10, epochs=4, lr=0.5, **changes)
    assert steps_per_epoch(config, 95) == 10
    got = {step: learning_rate(config, step, 95) for step in expected}
    assert got == pytest.approx(expected)


def test_permutation_depends_on_seed_and_epoch_alone():
    first = permutation(3, 1, 50)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() == permutation(3, 1, 50).tolist()
    assert first.tolist() != permutation(3, 2, 50).tolist()
    assert first.tolist() != permutation(4, 1, 50).tolist()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"beta": -1.0}, "beta must be finite and not negative; got -1"),
        ({"free_bits": math.nan}, "free_bits must be finite and not negative; got nan"),
        ({"kl_warmup_epochs": -1}, "kl_warmup_epochs must be finite and not negative"),
        ({"lr": 0.0}, "lr must be finite and positive; got 0"),
        ({"heldout": 1.0}, "heldout must be between 0 and 1; got 1"),
        ({"amp": "fp8"}, "amp must be one of off, bf16, fp16; got 'fp8'"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, .*; got 'lion'"),
        ({"schedule": "step"}, "schedule must be one of constant, cosine, linear; got 'step'"),
        ({"momentum": 0.9}, "momentum must be 0 for adam; rmsprop and sgd have it; got 0.9"),
        ({"ema": 1.0}, "ema must be less than 1; got 1"),
        ({"accumulate": 0}, "accumulate must be at least 1; got 0"),
        ({"objective": "vlb"}, "objective must be one of elbo, iwae; got 'vlb'"),
        (
            {"objective": "iwae", "beta": 2.0},
            "beta must be 1.0 for the objective iwae, which does not use it; got 2.0",
        ),
        ({"importance_samples": 3}, "importance_samples must be 5 for the objective elbo"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\); got -1"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**setting)


def test_settings_as_json():
    config = TrainConfig(epochs=3, amp="bf16")
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown training settings: epoch"):
        TrainConfig.from_dict({"epoch": 3})


def test_parts_are_checked_alone_and_make_up_the_whole():
    with pytest.raises(TypeError, match="lr must be a number; got '1'"):
        OptimConfig(lr="1")
    fields = [field.name for part in PARTS.values() for field in dataclasses.fields(part)]
    assert sorted(fields) == sorted(field.name for field in dataclasses.fields(TrainConfig))
    assert isinstance(TrainConfig(), OptimConfig)


def test_settings_of_runs_before_there_were_parts():
    names = "epochs batch lr beta kl_warmup_epochs free_bits grad_clip amp heldout seed device"
    values = {name: getattr(TrainConfig(), name) for name in names.split()}
    assert TrainConfig.from_dict(values) == TrainConfig()
