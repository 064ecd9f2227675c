"""What happens at which step is a function of the settings."""

from __future__ import annotations

import math

import pytest

from vaekernels.training import TrainConfig
from vaekernels.training.schedule import kl_weight, permutation, steps_per_epoch


def test_kl_warmup_is_linear_and_ends_at_beta():
    config = TrainConfig(batch=10, beta=4.0, kl_warmup_epochs=2.0)
    assert steps_per_epoch(config, 95) == 10
    weights = [kl_weight(config, step, 95) for step in (0, 5, 10, 20, 1000)]
    assert weights == [0.0, 1.0, 2.0, 4.0, 4.0]
    assert kl_weight(TrainConfig(beta=0.5), 0, 95) == 0.5


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
