"""The plain AutoencoderKL that the GPU suite compares with is diffusers'."""

from __future__ import annotations

import pytest
import torch

from tests.models import autoencoders
from vaekernels.bench import eager_kl

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize("name", ("sd1", "sd3", "without_attention"))
def test_it_is_diffusers(name: str) -> None:
    ours = autoencoders.kl(name)
    theirs = diffusers.AutoencoderKL.from_config(
        {**ours.config.to_dict(), "_class_name": "AutoencoderKL"}
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    plain = eager_kl.from_model(ours)
    images = autoencoders.images(ours.config.in_channels, 32, 32)
    with torch.no_grad():
        posterior = theirs.encode(images).latent_dist
        assert torch.allclose(plain.encode(images), posterior.parameters, atol=1e-5)
        z = posterior.mode()
        assert torch.allclose(plain.decode(z), theirs.decode(z).sample, atol=1e-5)


def test_the_loss_is_that_of_its_moments() -> None:
    plain = eager_kl.from_model(autoencoders.kl("sd1")).double()
    images = autoencoders.images(3, 16, 16).double()
    eps = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    mean, logvar = plain.encode(images).chunk(2, 1)
    z = torch.distributions.Normal(mean, (logvar / 2).exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(z, prior).sum() / 2
    error = (plain.decode(mean + z.scale * eps) - images).square().mean()
    torch.testing.assert_close(eager_kl.loss(plain, images, eps), error + 1e-6 * kl)
