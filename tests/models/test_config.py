"""``VAEConfig``: what it accepts, what it rejects and how it says so."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from vaekernels.models import VAEConfig

VALID: dict[str, Any] = {"image_shape": (1, 28, 28), "latent_dim": 20}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"backbone": "mlp", "hidden": (400,)},
        {"backbone": "mlp", "hidden": ()},
        {"image_shape": (3, 33, 7), "backbone": "mlp"},
        {"image_shape": (3, 48, 80), "hidden": (4, 8, 16, 32)},
        {"likelihood": "gaussian", "scale": 0.1},
        {"likelihood": "laplace", "scale": "learned", "activation": "silu"},
    ],
)
def test_json_round_trip(fields: dict[str, Any]) -> None:
    config = VAEConfig(**(VALID | fields))
    again = VAEConfig.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert list(json.loads(config.to_json())) == [f.name for f in dataclasses.fields(VAEConfig)]


def test_normalises_lists_and_integers() -> None:
    config = VAEConfig([1, 8, 8], 2, hidden=[4], likelihood="gaussian", scale=2)  # type: ignore[arg-type]
    assert config.image_shape == (1, 8, 8)
    assert config.hidden == (4,)
    assert isinstance(config.scale, float)


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        VAEConfig(**VALID).latent_dim = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"image_shape": (28, 28)}, ValueError, r"image_shape must be .*3 sizes; got \(28, 28\)"),
        ({"image_shape": "28"}, TypeError, "image_shape must be a tuple of integers; got '28'"),
        ({"image_shape": (1, 28.0, 28)}, TypeError, r"image_shape\[1\] .*integer; got 28.0"),
        ({"image_shape": (0, 28, 28)}, ValueError, r"image_shape\[0\] must be at least 1; got 0"),
        ({"image_shape": (1, 30, 28)}, ValueError, r"divisible by 4 .*got \(1, 30, 28\)"),
        ({"image_shape": (1, 28, 30)}, ValueError, r"divisible by 4 .*got \(1, 28, 30\)"),
        ({"latent_dim": 0}, ValueError, "latent_dim must be at least 1; got 0"),
        ({"latent_dim": True}, TypeError, "latent_dim must be an integer; got True"),
        ({"backbone": "vit"}, ValueError, "backbone must be one of conv, mlp; got 'vit'"),
        ({"backbone": None}, TypeError, "backbone must be a string; got None"),
        ({"hidden": ()}, ValueError, r"hidden must have at least one level for conv; got \(\)"),
        ({"hidden": (32, -1)}, ValueError, r"hidden\[1\] must be at least 1; got -1"),
        ({"likelihood": "poisson"}, ValueError, "likelihood must be one of .*; got 'poisson'"),
        ({"activation": "gelu"}, ValueError, "activation must be one of .*; got 'gelu'"),
        ({"scale": 0.5}, ValueError, "scale must be 1.0 for the bernoulli .*; got 0.5"),
        ({"likelihood": "gaussian", "scale": 0.0}, ValueError, "scale must be positive .*got 0"),
        ({"likelihood": "gaussian", "scale": float("nan")}, ValueError, "scale .*got nan"),
        ({"likelihood": "gaussian", "scale": float("inf")}, ValueError, "scale .*got inf"),
        ({"likelihood": "laplace", "scale": "free"}, TypeError, "or \"learned\"; got 'free'"),
        ({"likelihood": "laplace", "scale": True}, TypeError, "scale .*got True"),
    ],
)
def test_rejects_values(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        VAEConfig(**(VALID | fields))


def test_rejects_keys() -> None:
    with pytest.raises(ValueError, match=r"expected keys among image_shape, .*; got colour, depth"):
        VAEConfig.from_dict(VALID | {"depth": 3, "colour": 1})
    with pytest.raises(ValueError, match="latent_dim must be given"):
        VAEConfig.from_dict({"image_shape": [1, 4, 4]})


@pytest.mark.parametrize(
    ("text", "error"), [("{", ValueError), ("[1]", TypeError), ("null", TypeError)]
)
def test_rejects_text(text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="VAEConfig: expected"):
        VAEConfig.from_json(text)
