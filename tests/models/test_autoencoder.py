"""Scaled latents, checks, warnings and configurations of the autoencoders."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import autoencoders
from tests.models.autoencoders import images
from vaekernels.models import AutoencoderKL, AutoencoderKLConfig, AutoencoderTinyConfig
from vaekernels.models.autoencoder import base
from vaekernels.runtime import nonfinite_policy


def test_scaled_latents_have_shift_and_scale() -> None:
    model = autoencoders.kl("sd3")
    x = images(3, 16, 24)
    z = model.encode(x).latent_dist.mode()
    scaled = model.encode_scaled(x, sample=False)
    torch.testing.assert_close(scaled, (z - 0.0609) * 1.5305)
    torch.testing.assert_close(model.decode_scaled(scaled), model.decode(z).sample)
    drawn = model.encode_scaled(x, seed=3)
    expected = (model.encode(x).latent_dist.rsample(seed=3) - 0.0609) * 1.5305
    torch.testing.assert_close(drawn, expected)


def test_latents_mean_and_std_of_each_channel() -> None:
    config = dataclasses.replace(
        autoencoders.kl("sdxl").config,
        latents_mean=(1.0, 2.0, 3.0, 4.0),
        latents_std=(2.0, 2.0, 4.0, 4.0),
        scaling_factor=0.5,
    )
    model = AutoencoderKL(config)
    x = images(3, 8, 8)
    z = model.encode(x).latent_dist.mode()
    scaled = model.encode_scaled(x, sample=False)
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    std = torch.tensor([2.0, 2.0, 4.0, 4.0])[:, None, None]
    torch.testing.assert_close(scaled, (z - mean) * 0.5 / std)
    torch.testing.assert_close(model.decode_scaled(scaled), model.decode(z).sample)


def test_tiny_scales_and_stores() -> None:
    model = autoencoders.tiny("taesd", scaling_factor=2.0, shift_factor=0.25)
    x = images(3, 16, 16)
    z = model.encode(x).latents
    torch.testing.assert_close(model.encode_scaled(x), (z - 0.25) * 2.0)
    torch.testing.assert_close(model.decode_scaled((z - 0.25) * 2.0), model.decode(z).sample)
    stored = model.scale_latents(z)
    assert 0.0 <= stored.min() <= stored.max() <= 1.0
    torch.testing.assert_close(model.unscale_latents(stored), z.clamp(-3, 3))


@pytest.mark.parametrize("family", ["kl", "tiny"])
def test_reconstruct_records_no_graph(family: str) -> None:
    model = getattr(autoencoders, family)()
    x = images(3, 16, 24)
    y = model.reconstruct(x)
    assert not y.requires_grad
    with torch.no_grad():
        z = model.encode(x)
        z = z.latents if family == "tiny" else z.latent_dist.mean
        assert torch.equal(y, model.decode(z).sample)
    assert (model.reconstruct(x, max_memory="1GiB") - y).abs().max() < 1e-5


@torch.no_grad()
def test_forward_is_encode_sample_decode() -> None:
    model = autoencoders.kl("sdxl")
    x = images(3, 8, 12)
    z = model.encode(x).latent_dist.rsample(seed=1)
    assert torch.equal(model(x, seed=1).sample, model.decode(z).sample)
    assert torch.equal(model(x, sample=False).sample, model.reconstruct(x))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (None, TypeError, "x must be a tensor; got NoneType"),
        (torch.rand(3, 8, 8), ValueError, r"x must have shape \(B, 3, H, W\); got \(3, 8, 8\)"),
        (torch.rand(1, 4, 8, 8), ValueError, r"\(B, 3, H, W\); got \(1, 4, 8, 8\)"),
        (torch.rand(1, 3, 1, 8), ValueError, "x must be at least 2 pixels high and wide"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "divide by 127.5"),
        (torch.rand(1, 3, 8, 8, dtype=torch.float64), TypeError, "must be torch.float32"),
        (torch.rand(1, 3, 8, 8) * 255, ValueError, r"x must have values in \[-1, 1\]; got \["),
    ],
)
def test_bad_images(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"AutoencoderKL: .*{message}"):
        autoencoders.kl("sdxl").encode(x)


def test_the_range_check_can_be_switched_off() -> None:
    model = autoencoders.kl("sdxl")
    model.encode(torch.full((1, 3, 8, 8), 1.01))  # resizing overshoots
    with pytest.raises(ValueError, match="check_range = False"):
        model.encode(torch.full((1, 3, 8, 8), 2.0))
    model.check_range = False
    model.encode(torch.full((1, 3, 8, 8), 2.0))


KEYWORDS: list[dict[str, Any]] = [
    {"seed": 3},
    {"seed": 4},
    {"seed": 3, "step": 1},
    {"seed": 3, "sample_ids": torch.tensor([1, 0])},
    {"seed": 3, "sample_ids": torch.tensor([7, 9]), "step": 5},
    {"generator": 6},
    {"sample": False},
]


@torch.no_grad()
def test_noise_keywords_are_those_of_rsample() -> None:
    model = autoencoders.kl("sd3")
    x = images(3, 16, 16, batch=1).expand(2, -1, -1, -1)
    posterior, shift, scale = model.encode(x).latent_dist, 0.0609, 1.5305
    drawn = []
    for given in KEYWORDS:
        made = [dict(given) for _ in range(3)]
        for keywords in made:
            if "generator" in given:
                keywords["generator"] = torch.Generator().manual_seed(given["generator"])
        z = posterior.mode() if "sample" in given else posterior.rsample(**made[0])
        drawn.append(z)
        torch.testing.assert_close(model.encode_scaled(x, **made[1]), (z - shift) * scale)
        torch.testing.assert_close(model(x, **made[2]).sample, model.decode(z).sample)
    for index, z in enumerate(drawn):
        assert not any(torch.allclose(z, other) for other in drawn[:index])
    torch.testing.assert_close(drawn[0][0], drawn[3][1])  # the noise of identity 0


@pytest.mark.parametrize("family", ["kl", "tiny"])
@pytest.mark.parametrize(
    "call", ["encode", "encode_scaled", "decode", "decode_scaled", "reconstruct"]
)
def test_every_call_accepts_a_memory_bound(family: str, call: str) -> None:
    model = getattr(autoencoders, family)()
    given = torch.randn(1, 4, 8, 8) if "decode" in call else images(3, 16, 16)
    with pytest.raises(ValueError, match="max_memory must be at least"):
        getattr(model, call)(given, max_memory=1)
    with pytest.raises(ValueError, match="max_memory must be a positive"):
        getattr(model, call)(given, max_memory="none")


@pytest.mark.parametrize("family", ["kl", "tiny"])
def test_float16_on_the_cpu_warns_once(family: str) -> None:
    nonfinite_policy._warn_about_slowness.cache_clear()
    model = getattr(autoencoders, family)().half()
    z = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        with pytest.warns(
            UserWarning, match=r"torch.float16 on the CPU .*model.float\(\)"
        ) as caught:
            [model.decode(z.half()) for _ in range(2)]
        assert [w.filename for w in caught] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.float().decode(z)


def test_bad_latents() -> None:
    with pytest.raises(ValueError, match=r"z must have shape \(B, 4, H, W\); got \(1, 3, 8, 8\)"):
        autoencoders.kl("sdxl").decode_scaled(torch.rand(1, 3, 8, 8))


@pytest.fixture
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_LARGE", 16 * 16)
    base._warn_about_graph.cache_clear()


@pytest.mark.usefixtures("_small_is_large")
def test_a_large_graph_warns_once() -> None:
    model, z = autoencoders.kl("sdxl"), torch.randn(1, 4, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            model.decode(z)
        model.decode(z, max_memory="1GiB")
        model.decode(z[..., :4])
        model.train().decode(z)
        model.eval().requires_grad_(False).decode(z)
        model.requires_grad_(True)
    with pytest.warns(UserWarning, match=r"AutoencoderKL.decode .*no_grad.*max_memory") as caught:
        [model.decode(z) for _ in range(2)]
    assert len(caught) == 1
    assert caught[0].filename == __file__


CONFIG_ERRORS: list[tuple[type, dict[str, Any], str]] = [
    (AutoencoderKLConfig, {"block_out_channels": ()}, "at least one level"),
    (AutoencoderKLConfig, {"block_out_channels": (48,)}, "divisible by the 32 groups .*got 48"),
    (AutoencoderKLConfig, {"act_fn": "relu"}, "act_fn must be 'silu'; got 'relu'"),
    (AutoencoderKLConfig, {"down_block_types": ("AttnDownEncoderBlock2D",)}, "down_block_types"),
    (AutoencoderKLConfig, {"latents_mean": (1.0,)}, "latents_mean must have 4 numbers"),
    (AutoencoderKLConfig, {"scaling_factor": 0}, "scaling_factor must not be 0"),
    (AutoencoderKLConfig, {"layers_per_block": 0}, "layers_per_block must be at least 1"),
    (AutoencoderTinyConfig, {"num_encoder_blocks": (1, 3)}, "repeated for each of the 2 levels"),
    (AutoencoderTinyConfig, {"act_fn": "silu"}, "act_fn must be 'relu'; got 'silu'"),
    (AutoencoderTinyConfig, {"upsampling_scaling_factor": 4}, "must be 2; got 4"),
]


@pytest.mark.parametrize(("config", "fields", "message"), CONFIG_ERRORS)
def test_bad_configurations(config: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{config.__name__}: .*{message}"):
        config(**fields)


@pytest.mark.parametrize("preset", ["sd1", "sdxl", "sd3", "flux"])
def test_presets_round_trip_through_json(preset: str) -> None:
    config = AutoencoderKLConfig.preset(preset)
    assert AutoencoderKLConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["block_out_channels"] == [128, 256, 512, 512]


def test_an_unknown_preset() -> None:
    with pytest.raises(ValueError, match="must be one of sd1, sdxl, sd3, flux; got 'sd9'"):
        AutoencoderKLConfig.preset("sd9")


def test_training() -> None:
    """The loss decreases within a few steps, and every weight has a gradient."""
    model = autoencoders.kl("sdxl").train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = images(3, 8, 8)
    losses = []
    for _ in range(8):
        posterior = model.encode(x).latent_dist
        z, kl = posterior.rsample_kl(seed=0)
        loss = (model.decode(z).sample - x).square().mean() + 1e-6 * kl.mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    model = autoencoders.kl("sdxl")
    z = torch.randn(1, 4, 6, 5)

    def decode(z: Tensor) -> Tensor:
        return model.decode(z).sample

    with torch.no_grad():
        compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(z), decode(z))
    torch._dynamo.reset()
