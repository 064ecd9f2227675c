"""``vk.graph`` on a card: results, buffers, and noise that is new at each replay."""

from __future__ import annotations

import pytest
import torch

import vaekernels as vk
from tests.models import autoencoders
from vaekernels.models import VAE, VAEConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@pytest.fixture
def vae() -> VAE:
    config = VAEConfig(image_shape=(1, 16, 16), latent_dim=16, hidden=(16, 16))
    return VAE(config).cuda().eval()


def images(batch: int) -> torch.Tensor:
    return torch.rand(batch, 1, 16, 16, device="cuda")


def test_results_are_those_of_the_function(vae: VAE) -> None:
    decode = vk.graph(vae.decode, torch.randn(4, 16, device="cuda"))
    kept = []
    for batch in (4, 7, 4, 1, 7):
        z = torch.randn(batch, 16, device="cuda")
        with torch.no_grad():
            kept.append((decode(z).sample, vae.decode(z).sample))
    assert len(decode) == 3
    for found, expected in kept:  # later replays left them alone
        torch.testing.assert_close(found, expected)


def test_every_replay_draws_new_noise(vae: VAE) -> None:
    x = images(4)
    graph = vk.graph(vae, x)
    drawn = [graph(x).z for _ in range(5)]
    for index, z in enumerate(drawn):
        assert not any(torch.equal(z, other) for other in drawn[:index])
    torch.manual_seed(3)
    first = graph(x).z
    torch.manual_seed(3)
    assert torch.equal(graph(x).z, first)


def test_a_generator_is_drawn_from(vae: VAE) -> None:
    x = images(4)
    generator = torch.Generator("cuda").manual_seed(5)
    graph = vk.graph(vae, x, generator=generator)
    first, second = (graph(x, generator=generator).z for _ in range(2))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match=r"expected a generator on cuda:0, .*; got one on cpu"):
        vk.graph(vae, x, generator=torch.Generator())


def test_a_seed_gives_the_noise_that_it_gives_without_a_graph(vae: VAE) -> None:
    x = images(4)
    graph = vk.graph(vae, x, seed=0)
    for seed in (1, 2**64 - 1, torch.tensor(7), torch.tensor(8, device="cuda")):
        with torch.no_grad():
            expected = vae(x, seed=seed)
        torch.testing.assert_close(graph(x, seed=seed).z, expected.z)
    assert len(graph) == 1


def test_prior_samples_have_no_tensor_argument(vae: VAE) -> None:
    sample = vk.graph(vae.sample, 3)
    assert not torch.equal(sample(3), sample(3))


def test_autoencoders_are_recorded_with_the_check_of_their_range() -> None:
    model = autoencoders.kl().cuda()
    x = autoencoders.images(3, 16, 16).cuda()
    assert model.check_range
    graph = vk.graph(model, x, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(graph(x, seed=2).sample, model(x, seed=2).sample)


def test_what_waits_for_the_device_cannot_be_recorded() -> None:
    with pytest.raises(RuntimeError, match=r"graph: the model ran and could not be recorded"):
        vk.graph(lambda x: x * float(x.sum()), torch.ones(3, device="cuda"))


def test_a_tensor_elsewhere_is_an_error(vae: VAE) -> None:
    graph = vk.graph(vae)
    ids = torch.arange(4)
    with pytest.raises(ValueError, match=r"on cuda:0; got tensor 1 of the arguments, .* on cpu"):
        graph(images(4), sample_ids=ids)
