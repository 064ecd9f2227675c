"""Objectives against the methods of ``VAE``, closed forms and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.models import VAE, VAEConfig
from vaekernels.objectives import ELBO, IWAE, ObjectiveConfig, free_bits_kl
from vaekernels.objectives.elbo import kl_of_dims
from vaekernels.objectives.iwae import LogMeanExp


@dataclass
class Images:
    x: Tensor
    ids: Tensor


@pytest.fixture
def model() -> VAE:
    return VAE(VAEConfig((1, 4, 4), 3, backbone="mlp", hidden=(8,))).double()


@pytest.fixture
def batch() -> Images:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    return Images(x, torch.tensor([4, 9, 0, 2, 7]))


@pytest.mark.parametrize("settings", [{}, {"beta": 3.0}, {"free_bits": 0.5, "beta": 2.0}])
def test_elbo_is_that_of_the_model(model: VAE, batch: Images, settings: dict[str, float]) -> None:
    got = ELBO(**settings, seed=7)(model, batch, 3)
    right = model(batch.x, **settings, seed=7, step=3, sample_ids=batch.ids)
    assert torch.equal(got.total, right.loss)
    assert torch.equal(got.terms["nll"], right.nll)
    assert torch.equal(got.terms["kl"], right.kl)


def test_warmup_is_linear_and_ends_at_beta() -> None:
    objective = ObjectiveConfig(beta=4.0, kl_warmup_epochs=2.0).build(0, 10)
    weights = [objective.settings(step)["beta"] for step in (0, 5, 10, 20, 1000)]
    assert weights == [0.0, 1.0, 2.0, 4.0, 4.0]
    assert ObjectiveConfig(beta=0.5).build(0, 10).settings(0) == {"beta": 0.5}


def test_warmup_weighs_the_kl(model: VAE, batch: Images) -> None:
    objective = ELBO(beta=2.0, warmup_steps=8.0)
    for step, beta in ((0, 0.0), (2, 0.5), (8, 2.0)):
        out = objective(model, batch, step)
        right = (out.terms["nll"] + beta * out.terms["kl"]).mean()
        torch.testing.assert_close(out.total, right)


def test_summary_is_the_elbo_whatever_the_weights() -> None:
    assert ELBO(beta=3.0, free_bits=1.0).summary({"nll": 5.0, "kl": 2.0}) == {"elbo": -7.0}


def test_iwae_is_the_marginal_likelihood_of_the_model(model: VAE, batch: Images) -> None:
    out = ObjectiveConfig(objective="iwae", importance_samples=4).build(7, 10)(model, batch, 3)
    right = model.marginal_log_likelihood(batch.x, 4, seed=7, step=12, sample_ids=batch.ids)
    assert torch.equal(out.terms["iwae"].detach(), right)
    torch.testing.assert_close(out.total, -right.mean(), check_dtype=True)


def test_gradient_of_iwae(model: VAE, batch: Images) -> None:
    """That of the log of the mean weight, written out with torch.distributions."""
    IWAE(samples=3, seed=7)(model, batch, 2).total.backward()
    got = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    posterior = model.encode(batch.x).latent_dist.to_torch().base_dist
    prior = torch.distributions.Normal(0.0, 1.0)
    weights = []
    for step in (6, 7, 8):
        eps = vk.randn((5, 3), seed=7, step=step, sample_ids=batch.ids, dtype=torch.float64)
        z = posterior.mean + posterior.stddev * eps
        ratio = (prior.log_prob(z) - posterior.log_prob(z)).sum(1)
        weights.append(ratio - model.likelihood.nll(model.decoder(z), batch.x))
    (math.log(3) - torch.stack(weights).logsumexp(0)).mean().backward()
    for grad, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_noise_of_training_steps_does_not_overlap(model: VAE, batch: Images) -> None:
    objective = IWAE(samples=2)
    losses = {objective(model, batch, step).total.item() for step in (0, 1, 2, 2**32 - 1)}
    assert len(losses) == 4


def test_kl_of_dims_sums_to_the_op() -> None:
    posterior = DiagonalGaussian(torch.randn(4, 6, dtype=torch.float64))
    torch.testing.assert_close(kl_of_dims(posterior).sum(1), posterior.kl())


def test_settings_that_an_objective_does_not_use() -> None:
    with pytest.raises(ValueError, match=r"free_bits must be 0.0 for the objective iwae.*got 0.1"):
        ObjectiveConfig(objective="iwae", free_bits=0.1)
    with pytest.raises(ValueError, match="importance_samples must be 5 for the objective elbo"):
        replace(ObjectiveConfig(), importance_samples=6)


def test_free_bits_by_hand() -> None:
    mean = torch.tensor([[2.0, 0.1], [0.0, 0.3]], requires_grad=True)
    posterior = DiagonalGaussian.from_mean_logvar(mean, torch.zeros(2, 2))
    # KL per dim is mean^2 / 2: batch means 1.0 and 0.025, so that only dim 1 is below 0.4.
    kl = free_bits_kl(posterior, 0.4)
    torch.testing.assert_close(kl, torch.tensor([2.4, 0.4]))
    kl.mean().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_log_mean_exp_is_stable() -> None:
    values = torch.tensor([[1e4, -1e4, -math.inf, 0.0], [1e4 - 1, -1e4, -math.inf, -math.inf]])
    values = values.double()
    estimate = LogMeanExp()
    for row in values:
        estimate.add(row.unsqueeze(0))
    torch.testing.assert_close(estimate.result(), values.logsumexp(0) - math.log(2))
