"""Every model raises an error for images out of range or with NaN, and names them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.models import autoencoders
from vaekernels.models import VAE, VAEConfig, image_range


def vae(**fields: Any) -> VAE:
    return VAE(VAEConfig((3, 8, 8), 4, backbone="mlp", hidden=(8,), **fields))


MODELS: dict[str, Callable[[], Any]] = {
    "kl": lambda: autoencoders.kl("sdxl"),
    "tiny": lambda: autoencoders.tiny("wide"),
    "vae": vae,
    "gaussian vae": lambda: vae(likelihood="gaussian"),
    "laplace vae": lambda: vae(likelihood="laplace"),
}
CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "encode": lambda m, x: m.encode(x),
    "forward": lambda m, x: m(x),
    "encode_scaled": lambda m, x: m.encode_scaled(x),
    "encode within a bound": lambda m, x: m.encode(x, max_memory="1GiB"),
    "reconstruct": lambda m, x: m.reconstruct(x),
    "elbo": lambda m, x: m.elbo(x),
    "marginal_log_likelihood": lambda m, x: m.marginal_log_likelihood(x, 2),
    "interpolate": lambda m, x: m.interpolate(x, x, 2),
}
OF_AUTOENCODERS = ("encode", "forward", "encode_scaled", "encode within a bound", "reconstruct")
OF_VAES = ("encode", "forward", "elbo", "marginal_log_likelihood", "interpolate")


def images() -> Tensor:
    """Images in the range of every model."""
    return torch.rand(4, 3, 8, 8)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 300.0, -7.0], ids=str)
def test_every_call_names_images_out_of_range(name: str, bad: float) -> None:
    model, x = MODELS[name](), images()
    x[1, 2, 7, 7] = bad
    x[3, 0, 0, 0] = bad
    bounded = not name.startswith(("gaussian", "laplace"))
    got = "NaN" if math.isnan(bad) else f"{bad:g}"
    for call in OF_VAES if "vae" in name else OF_AUTOENCODERS:
        if math.isnan(bad) and name in ("kl", "tiny") and call != "encode_scaled":
            continue  # test_nan_propagates
        if bounded or not math.isfinite(bad):
            with pytest.raises(ValueError, match=rf"x must have .*; got .*{got}.* images 1, 3 of"):
                CALLS[call](model, x)
        else:
            CALLS[call](model, x)


@pytest.mark.parametrize("name", ["kl", "tiny", "vae"])
def test_values_beside_nan_are_checked(name: str) -> None:
    x = images()
    x[0, 0, 0, 0], x[2, 1], x[2, 2, 5, 5] = math.nan, 300.0, math.nan
    with pytest.raises(ValueError, match=r"got \[\S+, 300\] and NaN in images 0, 2 of"):
        MODELS[name]().encode(x)
    x = torch.full_like(x, math.nan)
    model = MODELS[name]()
    with pytest.raises(ValueError, match="got NaN in images 0, 1, 2, 3 of a batch of 4"):
        (model.encode if name == "vae" else model.encode_scaled)(x)


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_nan_propagates(name: str) -> None:
    """NaN propagates through ``encode``; ``encode_scaled`` raises an error."""
    model, x = MODELS[name](), images()
    x[1] = math.nan
    for call in ("encode", "encode within a bound"):
        found = CALLS[call](model, x)
        latents = found.latents if name == "tiny" else found.latent_dist.mean
        assert latents[1].isnan().all()
        assert latents[[0, 2, 3]].isfinite().all()
    with pytest.raises(ValueError, match="got NaN in image 1 of a batch of 4"):
        model.encode_scaled(x)


def test_the_error_lists_few_of_many_images() -> None:
    with pytest.raises(ValueError, match="images 0, 1, 2, 3, 4, 5, 6, 7 and 12 others of a batch"):
        vae().encode(255 * torch.rand(20, 3, 8, 8) + 1)


@pytest.mark.parametrize("name", MODELS)
def test_the_range_has_a_tolerance(name: str) -> None:
    model = MODELS[name]()
    for value in (-1.0, -0.04, 0.0, 1.0, 1.04):
        if name != "vae" or value > -0.05:
            model.encode(torch.full((1, 3, 8, 8), value))
    model.encode(torch.rand(0, 3, 8, 8))


@pytest.mark.parametrize("name", ["gaussian vae", "laplace vae"])
def test_eight_bit_values_warn_once_for_unbounded_likelihoods(name: str) -> None:
    image_range._warn_about_eight_bits.cache_clear()
    model = MODELS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(images() * 8 - 4)  # standardised
    with pytest.warns(UserWarning, match="VAE: x has values above 16.*divided by 255") as caught:
        [model.encode(255 * images()) for _ in range(2)]
    assert len(caught) == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_check_can_be_switched_off(name: str) -> None:
    model, x = MODELS[name](), images()
    x[1, 0, 0, 0] = math.nan
    model.check_range = False
    found = model.encode(x)
    latents = found.latents if hasattr(found, "latents") else found.latent_dist.mean
    assert latents[[0, 2, 3]].isfinite().all()


def test_nothing_is_checked_where_values_cannot_be_read() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        vae().encode(torch.rand(2, 3, 8, 8))
    model, x = vae(), images()
    per_image = torch.func.vmap(lambda x: model.encode(x[None]).latent_dist.mean[0])
    torch.testing.assert_close(per_image(x), model.encode(x).latent_dist.mean)
