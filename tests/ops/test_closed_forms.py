"""Independent witnesses: closed forms, torch built-ins, brute force."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence

import vaekernels as vk


def _rows(*shape: int, count: int) -> list[torch.Tensor]:
    return [torch.randn(*shape, dtype=torch.float64) for _ in range(count)]


def test_kl_of_the_prior_from_itself_is_zero() -> None:
    zeros = torch.zeros(4, 10)
    assert torch.equal(vk.gaussian_kl(zeros, zeros), torch.zeros(4))
    mean, logvar = torch.randn(4, 10), torch.randn(4, 10)
    assert torch.equal(vk.gaussian_kl(mean, logvar, mean, logvar), torch.zeros(4))


def test_gaussian_kl_is_torch_distributions() -> None:
    mean, logvar, prior_mean, prior_logvar = _rows(5, 3, 7, count=4)
    expected = kl_divergence(
        Normal(mean, (0.5 * logvar).exp()), Normal(prior_mean, (0.5 * prior_logvar).exp())
    )
    got = vk.gaussian_kl(mean, logvar, prior_mean, prior_logvar)
    torch.testing.assert_close(got, expected.sum((1, 2)))
    standard = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(vk.gaussian_kl(mean, logvar), standard)
    torch.testing.assert_close(vk.rsample_kl(mean, logvar, seed=0)[1], standard)


def test_priors_broadcast_and_get_their_gradients() -> None:
    mean, logvar = _rows(6, 4, count=2)
    prior_mean = torch.randn(4, dtype=torch.float64, requires_grad=True)
    prior_logvar = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    got = torch.autograd.grad(
        vk.gaussian_kl(mean, logvar, prior_mean, prior_logvar).sum(), (prior_mean, prior_logvar)
    )
    prior = Normal(prior_mean, (0.5 * prior_logvar).exp())
    expected = torch.autograd.grad(
        kl_divergence(Normal(mean, (0.5 * logvar).exp()), prior).sum(), (prior_mean, prior_logvar)
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_bernoulli_nll_is_torch_distributions_and_bce() -> None:
    (logits,) = _rows(5, 9, count=1)
    target = torch.rand(5, 9, dtype=torch.float64)
    bits = (target > 0.5).double()
    torch.testing.assert_close(
        vk.bernoulli_nll(logits, bits), -Bernoulli(logits=logits).log_prob(bits).sum(1)
    )
    expected = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    torch.testing.assert_close(vk.bernoulli_nll(logits, target), expected)


def test_bernoulli_nll_keeps_tiny_losses() -> None:
    """A confident, right pixel: log(1 + e^-x), where 1 + e^-x is 1 in float32."""
    logits = torch.tensor([[20.0], [40.0], [-20.0]])
    target = torch.tensor([[1.0], [1.0], [0.0]])
    expected = torch.tensor([math.log1p(math.exp(-x)) for x in (20.0, 40.0, 20.0)])
    torch.testing.assert_close(vk.bernoulli_nll(logits, target), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("logvar", (0.7, -3.0))
def test_gaussian_nll_is_torch_distributions(logvar: float) -> None:
    mean, target = _rows(4, 3, 5, count=2)
    expected = -Normal(mean, math.exp(0.5 * logvar)).log_prob(target).sum((1, 2))
    torch.testing.assert_close(vk.gaussian_nll(mean, target, logvar), expected)
    per_channel = torch.full((3, 1), logvar, dtype=torch.float64)
    torch.testing.assert_close(vk.gaussian_nll(mean, target, per_channel), expected)
    parameter = torch.nn.Parameter(torch.tensor([logvar], dtype=torch.float64))
    torch.testing.assert_close(vk.gaussian_nll(mean, target, parameter), expected)


@pytest.mark.parametrize("scale", (1.0, 0.2, 30.0))
def test_laplace_nll_is_torch_distributions(scale: float) -> None:
    mean, target = _rows(4, 11, count=2)
    expected = -Laplace(mean, scale).log_prob(target).sum(1)
    torch.testing.assert_close(vk.laplace_nll(mean, target, scale), expected)
    field = torch.full((11,), scale, dtype=torch.float64)
    torch.testing.assert_close(vk.laplace_nll(mean, target, field), expected)


def test_the_gradient_of_a_learned_variance_vanishes_at_the_sample_variance() -> None:
    """Closed form: the maximum-likelihood variance is the mean squared residual."""
    mean, target = _rows(8, 50, count=2)
    best = ((mean - target) ** 2).mean().log().requires_grad_()
    vk.gaussian_nll(mean, target, best).sum().backward()
    assert abs(float(best.grad)) < 1e-9


def test_large_means_do_not_cancel() -> None:
    mean = torch.full((2, 1000), 3e3)
    kl = vk.gaussian_kl(mean, torch.zeros_like(mean))
    torch.testing.assert_close(kl, torch.full((2,), 0.5 * 9e6 * 1000), rtol=1e-6, atol=0)


def test_logvar_is_clamped_and_its_gradient_stops_there() -> None:
    logvar = torch.tensor([[-50.0, -30.0, 0.0, 20.0, 50.0]], requires_grad=True)
    mean = torch.zeros_like(logvar)
    z, kl = vk.rsample_kl(mean, logvar, seed=1)
    eps = vk.randn((1, 5), seed=1)
    torch.testing.assert_close(z, (0.5 * logvar.clamp(-30, 20)).exp() * eps)
    kl.sum().backward()
    assert logvar.grad is not None
    assert (logvar.grad != 0).tolist() == [[False, True, False, True, False]]
    free = vk.rsample_kl(mean, logvar.detach(), seed=1, logvar_clamp=None)[0]
    torch.testing.assert_close(free, (0.5 * logvar.detach()).exp() * eps)
