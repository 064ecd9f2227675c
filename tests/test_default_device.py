"""Constants are created on the device of the inputs, for any default device of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import vaekernels as vk
from tests.models import autoencoders
from tests.ops import convs
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import LATENT, run
from vaekernels.models import VAE, VAEConfig

BACKENDS = ("reference", "cpu")
X = torch.linspace(-2.0, 2.0, 24).view(2, 12)


def _skip_if_refused(backend: str) -> None:
    if registry.refusals(backend, "rsample_kl", "cpu", torch.float32):
        pytest.skip(f"{backend} does not run here")


def assert_same_under_meta(call: Callable[[], Any]) -> None:
    """Check that ``call`` returns the same with the default device ``meta``."""
    torch.manual_seed(0)
    right = call()
    torch.manual_seed(0)
    with torch.device("meta"):
        got = call()
    for ours, theirs in zip(tree_leaves(got), tree_leaves(right), strict=True):
        assert isinstance(ours, Tensor)
        assert ours.device == theirs.device
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", LATENT)
def test_latent_ops(op: str, backend: str) -> None:
    _skip_if_refused(backend)
    inputs = LATENT[op].inputs((3, 7), torch.float32, torch.Generator().manual_seed(0))
    grads = run(LATENT[op], inputs, backend)[1]
    assert_same_under_meta(lambda: run(LATENT[op], inputs, backend, grads)[::2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "call",
    [
        lambda **o: vk.rsample_kl(X, X, **o),  # a drawn seed
        lambda **o: vk.rsample_kl(X, X, seed=2**64 - 1, **o),
        lambda **o: vk.rsample_kl(X, X, generator=torch.Generator("cpu").manual_seed(1), **o),
        lambda **o: vk.randn((2, 3), seed=1, device="cpu", **o),
        lambda **o: vk.gaussian_kl(X, X, 0.5, 0.25, **o),
        lambda **o: vk.gaussian_nll(X, X, 0.0, **o),
        lambda **o: vk.laplace_nll(X, X, 2.0, **o),
    ],
)
def test_seeds_and_numbers(call: Callable[..., Any], backend: str) -> None:
    _skip_if_refused(backend)
    assert_same_under_meta(lambda: call(backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_convolutions(conv: convs.Conv, backend: str) -> None:
    _skip_if_refused(backend)
    tensors = conv.tensors()
    grad = torch.ones_like(conv(tensors, backend="reference"))
    assert_same_under_meta(lambda: conv.results(tensors, grad, backend=backend))


def test_group_norm_and_distributions() -> None:
    moments = torch.randn(2, 8, 5, 5)
    weight = torch.ones(8)
    assert_same_under_meta(lambda: vk.group_norm_silu(moments, weight, weight, 2))
    gaussian = vk.DiagonalGaussian(moments)
    certain = vk.DiagonalGaussian(moments, deterministic=True)
    assert_same_under_meta(lambda: [d.rsample_kl(seed=1) for d in (gaussian, certain)])
    assert_same_under_meta(lambda: (gaussian.kl(), gaussian.nll(gaussian.mean), gaussian.std))


@pytest.mark.parametrize("likelihood", ("bernoulli", "gaussian", "laplace"))
def test_vae(likelihood: str) -> None:
    scale = {} if likelihood == "bernoulli" else {"scale": 0.5}
    model = VAE(VAEConfig((1, 8, 8), 3, hidden=(4,), likelihood=likelihood, **scale)).eval()
    x = torch.rand(2, 1, 8, 8)

    @torch.no_grad()
    def call() -> list[Tensor]:
        return [
            *vars(model(x)).values(),
            model.encode(x).latent_dist.rsample(),
            model.sample(2),
            model.marginal_log_likelihood(x, samples=2),
            model.interpolate(x, x.flip(0), steps=3),
        ]

    assert_same_under_meta(call)


@pytest.mark.parametrize("make", (autoencoders.kl, autoencoders.tiny))
def test_autoencoders(make: Callable[[], Any]) -> None:
    model = make()
    x = autoencoders.images(3, 32, 32, batch=1)

    @torch.no_grad()
    def call() -> list[Tensor]:
        z = model.encode_scaled(x)
        return [z, model.decode_scaled(z), model(x).sample]

    assert_same_under_meta(call)


def test_randn_and_parameters_use_the_default_device() -> None:
    """Like torch.randn and torch.nn."""
    with torch.device("meta"):
        assert vk.randn((2, 3), seed=1).device.type == "meta"
        assert all(p.device.type == "meta" for p in vk.nn.GroupNormSiLU(2, 8).parameters())
