"""The autoencoders compared with diffusers' on the same weights: keys, results, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import autoencoders
from tests.models.autoencoders import KL, TINY, images

diffusers = pytest.importorskip("diffusers")

SIZES = {"sd1": (24, 36), "sd3": (32, 40), "one_level": (9, 13), "taesd": (24, 33)}


def _theirs(ours: Any) -> Any:
    """Diffusers' model with the weights of ours; load_state_dict is strict."""
    values = {k: v for k, v in ours.config.to_dict().items() if k != "pooled_bottleneck"}
    if isinstance(ours, autoencoders.AutoencoderTiny):
        del values["block_out_channels"]
    theirs = getattr(diffusers, type(ours).__name__)(**values)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval()


def _pairs() -> Iterator[tuple[str, Any]]:
    yield from (("kl", name) for name in KL)
    yield from (("tiny", name) for name in TINY)


def _gradients(model: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1.0, 1.0, y.numel()).view_as(y)
    (y * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"input": x.grad, **found}


def _assert_close(got: Tensor, expected: Tensor, bound: float, name: str = "") -> None:
    error = (got - expected).abs().max() / expected.abs().max().clamp_min(1e-20)
    assert error <= bound, f"{name}: {error}"


@pytest.mark.parametrize(("family", "name"), _pairs())
@pytest.mark.parametrize("half", ["encode", "decode"])
def test_results_and_gradients(family: str, name: str, half: str) -> None:
    ours = getattr(autoencoders, family)(name)
    theirs = _theirs(ours)
    size = SIZES.get(name, (18, 16))
    channels = ours.image_channels if half == "encode" else ours.latent_channels
    x = images(channels, *(size if half == "encode" else (5, 6)))
    results = []
    for model in (ours, theirs):
        leaf = x.clone().requires_grad_()
        found = getattr(model, half)(leaf)
        if half == "decode":
            y = found.sample
        elif family == "tiny":
            y = found.latents
        else:
            y = torch.cat((found.latent_dist.mean, found.latent_dist.logvar), 1)
        results.append((y.detach(), _gradients(model, leaf, y)))
    (y, gradients), (expected, expected_gradients) = results
    _assert_close(y, expected, 5e-5)
    assert gradients.keys() == expected_gradients.keys()
    for key, gradient in gradients.items():
        if key.endswith("to_k.bias"):  # softmax does not see it: its gradient is rounding
            continue
        _assert_close(gradient, expected_gradients[key], 1e-3, key)


def test_a_published_configuration() -> None:
    """Of the real architecture, keys and shapes; without the time that its results take."""
    for preset in ("sd1", "sdxl", "sd3", "flux"):
        config = autoencoders.AutoencoderKLConfig.preset(preset)
        with torch.device("meta"):
            ours = autoencoders.AutoencoderKL(config)
            theirs = diffusers.AutoencoderKL(**config.to_dict())
        ours.load_state_dict(theirs.state_dict(), assign=True)
        theirs.load_state_dict(ours.state_dict(), assign=True)


@pytest.mark.parametrize(("family", "name"), [("kl", "sd3"), ("tiny", "taesd")])
def test_folders_both_ways(tmp_path: Any, family: str, name: str) -> None:
    ours = getattr(autoencoders, family)(name)
    ours.save_pretrained(tmp_path / "ours")
    theirs = getattr(diffusers, type(ours).__name__).from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = type(ours).from_pretrained(tmp_path / "theirs")
    assert again.config == ours.config
    for key, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    ours = autoencoders.kl("sdxl", dtype)
    theirs = _theirs(ours).to(dtype)
    z = torch.randn(1, 4, 6, 5, dtype=dtype)
    with torch.no_grad():
        y, expected = ours.decode(z).sample, theirs.decode(z).sample
    assert y.dtype == dtype
    _assert_close(y, expected, 1e-12 if dtype == torch.float64 else 0.05)
