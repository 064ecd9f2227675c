"""``VAE``: closed forms, gradients, noise, estimators, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.models import VAE, VAEConfig
from vaekernels.models.vae.interpolation import slerp
from vaekernels.models.vae.likelihoods import lying_as

TINY = VAEConfig((1, 4, 4), 3, backbone="mlp", hidden=(8,))


def make(config: VAEConfig = TINY, dtype: torch.dtype = torch.float32) -> VAE:
    torch.manual_seed(0)
    return VAE(config).to(dtype)


def images(config: VAEConfig = TINY, batch: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, *config.image_shape, generator=generator, dtype=dtype)


def linear_gaussian(posterior_error: float = 0.0) -> tuple[VAE, torch.distributions.Distribution]:
    """A VAE with a linear decoder, and its exact marginal likelihood.

    x = W z + b + s e, so that p(x) = N(b, W W^T + s^2 I). With orthogonal columns of W the
    exact posterior is diagonal, and the encoder has it, but for an error of its log variance.
    """
    scale, latent = 0.7, 2
    config = VAEConfig(
        (1, 2, 3), latent, backbone="mlp", hidden=(), likelihood="gaussian", scale=scale
    )
    model = make(config, torch.float64)
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(6, latent, generator=generator, dtype=torch.float64)).Q
    weight = basis * torch.tensor([1.5, 0.8], dtype=torch.float64)
    bias = torch.randn(6, generator=generator, dtype=torch.float64)
    precision = 1.0 + weight.square().sum(0) / scale**2
    gain = weight.T / (scale**2 * precision.unsqueeze(1))
    with torch.no_grad():
        model.decoder.output.weight.copy_(weight)
        model.decoder.output.bias.copy_(bias)
        model.encoder.moments.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        model.encoder.moments.bias.copy_(
            torch.cat([-gain @ bias, posterior_error - precision.log()])
        )
    covariance = weight @ weight.T + scale**2 * torch.eye(6, dtype=torch.float64)
    return model, torch.distributions.MultivariateNormal(bias, covariance)


@pytest.mark.parametrize("name", ["beta", "free_bits"])
@pytest.mark.parametrize("value", [1e308, 10**400])
def test_weights_beyond_float32_are_refused(name, value):
    model = VAE(VAEConfig((1, 4, 4), 2, hidden=(3,)))
    with pytest.raises(ValueError, match=f"VAE: {name} must be at most 3.4e"):
        model(torch.rand(2, 1, 4, 4), **{name: value})


def test_mlp_is_that_of_pytorch_examples() -> None:
    config = VAEConfig((1, 28, 28), 20, backbone="mlp", hidden=(400,))
    model, x = make(config), images(config)
    assert sum(p.numel() for p in model.parameters()) == 652_824
    output = model(x, seed=3)

    h1 = F.relu(F.linear(x.view(-1, 784), *model.encoder.layers[0].parameters()))
    mu, logvar = F.linear(h1, *model.encoder.moments.parameters()).chunk(2, dim=1)
    h3 = F.relu(F.linear(output.z, *model.decoder.layers[0].parameters()))
    recon = torch.sigmoid(F.linear(h3, *model.decoder.output.parameters()))
    bce = F.binary_cross_entropy(recon, x.view(-1, 784), reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    torch.testing.assert_close(output.loss, (bce + kld) / len(x))
    torch.testing.assert_close(output.reconstruction, recon.view_as(x))


@pytest.mark.parametrize(
    ("likelihood", "scale"),
    [
        ("bernoulli", 1.0),
        ("gaussian", 1.0),
        ("gaussian", 0.3),
        ("gaussian", "learned"),
        ("laplace", 1.0),
        ("laplace", 0.3),
        ("laplace", "learned"),
    ],
)
def test_likelihoods_match_torch_distributions(likelihood: Any, scale: Any) -> None:
    config = VAEConfig((1, 4, 4), 3, hidden=(4,), likelihood=likelihood, scale=scale)
    model, x = make(config, torch.float64), images(config, dtype=torch.float64)
    value = scale
    if scale == "learned":
        value = 0.4
        with torch.no_grad():
            model.likelihood.log_scale.fill_(math.log(value))
    output = model(x, seed=1)
    decoded = model.decode(output.z)
    distribution: torch.distributions.Distribution = {
        "bernoulli": lambda: torch.distributions.Bernoulli(logits=decoded.raw, validate_args=False),
        "gaussian": lambda: torch.distributions.Normal(decoded.raw, value),
        "laplace": lambda: torch.distributions.Laplace(decoded.raw, value),
    }[likelihood]()
    torch.testing.assert_close(output.nll, -distribution.log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(decoded.sample, distribution.mean)
    torch.testing.assert_close(output.reconstruction, decoded.sample)


@pytest.mark.parametrize("backbone", ["conv", "mlp"])
@pytest.mark.parametrize("activation", ["relu", "silu", "leaky_relu", "tanh"])
def test_gradients_reach_every_parameter(backbone: Any, activation: Any) -> None:
    config = VAEConfig(
        (2, 8, 8),
        3,
        backbone,
        (6, 8),
        likelihood="gaussian",
        scale="learned",
        activation=activation,
    )
    model = make(config)
    model(images(config), seed=1).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(
    ("size", "hidden"), [((2, 6), (4,)), ((8, 24), (3, 5, 7)), ((4, 4), (2, 2))]
)
def test_any_divisible_size(channels: int, size: tuple[int, int], hidden: tuple[int, ...]) -> None:
    config = VAEConfig((channels, *size), 3, hidden=hidden)
    output = make(config)(images(config, batch=2), seed=0)
    assert output.reconstruction.shape == (2, channels, *size)
    assert output.z.shape == (2, 3)
    assert output.nll.shape == output.kl.shape == (2,)
    assert output.loss.shape == ()


def test_kl_is_zero_at_the_prior() -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.encoder.moments.parameters():
            parameter.zero_()
    output = model(images(), seed=1)
    assert torch.equal(output.kl, torch.zeros(5))


def test_targets_lie_as_the_decoder_s_output() -> None:
    x = torch.rand(2, 3, 4, 6)
    last = torch.rand(2, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    moved = lying_as(last, x)
    assert moved.stride() == last.stride()
    assert torch.equal(moved, x)
    assert lying_as(x, last).stride() == last.stride()
    assert lying_as(x.flatten(1), x.flatten(1)).shape == (2, 72)
    assert lying_as(last[:, :1], x[:, :1]).shape == (2, 1, 4, 6)


def test_loss_is_the_negative_elbo() -> None:
    model, x = make(), images()
    for beta, free_bits in [(1.0, 0.0), (0.0, 0.0), (4, 0.5)]:
        output = model(x, beta=beta, free_bits=free_bits, seed=1, step=2)
        elbo = model.elbo(x, beta, free_bits, seed=1, step=2)
        torch.testing.assert_close(output.loss, -elbo.mean())
        if not free_bits:
            torch.testing.assert_close(-elbo, output.nll + beta * output.kl)
    assert elbo.requires_grad


def test_free_bits_below_every_dim_change_nothing() -> None:
    model, x = make(), images()
    with torch.no_grad():
        model.encoder.moments.bias += 3.0
    plain, free = (model(x, seed=1, free_bits=value) for value in (0.0, 0.1))
    torch.testing.assert_close(plain.loss, free.loss)
    assert torch.equal(plain.kl, free.kl)


def test_marginal_likelihood_is_exact_with_the_exact_posterior() -> None:
    model, marginal = linear_gaussian()
    x = images(model.config, dtype=torch.float64)
    exact = marginal.log_prob(x.flatten(1))
    torch.testing.assert_close(model.marginal_log_likelihood(x, 1, seed=1), exact)
    torch.testing.assert_close(model.marginal_log_likelihood(x, 37, chunk=5, seed=1), exact)


def test_marginal_likelihood_converges_from_below() -> None:
    model, marginal = linear_gaussian(posterior_error=0.8)
    x = images(model.config, dtype=torch.float64).repeat(400, 1, 1, 1)
    exact = marginal.log_prob(x.flatten(1)).mean()
    elbo = model.elbo(x, seed=1).mean()
    bounds = [model.marginal_log_likelihood(x, k, seed=1).mean() for k in (1, 5, 50)]
    assert elbo < exact
    assert bounds[0] < bounds[1] < bounds[2] < exact + 1e-3
    many = model.marginal_log_likelihood(x[:5], 4000, chunk=500, seed=1)
    torch.testing.assert_close(many, marginal.log_prob(x[:5].flatten(1)), atol=0.05, rtol=0)


def test_marginal_likelihood_does_not_depend_on_chunk_or_batch() -> None:
    config = VAEConfig((1, 4, 4), 2, hidden=(4,))
    model, x = make(config, torch.float64), images(config, dtype=torch.float64)
    ids = torch.arange(5)
    whole = model.marginal_log_likelihood(x, 7, seed=1, sample_ids=ids)
    assert whole.shape == (5,)
    assert not whole.requires_grad
    for chunk in (1, 3, 100):
        torch.testing.assert_close(model.marginal_log_likelihood(x, 7, chunk=chunk, seed=1), whole)
    order = torch.tensor([3, 0, 4])
    part = model.marginal_log_likelihood(x[order], 7, seed=1, sample_ids=ids[order])
    torch.testing.assert_close(part, whole[order])


def test_noise_follows_the_sample_ids() -> None:
    model, x = make(dtype=torch.float64), images(dtype=torch.float64)
    ids, order = torch.arange(10, 15), torch.tensor([4, 2, 0, 1, 3])
    whole = model(x, seed=1, step=9, sample_ids=ids)
    moved = model(x[order], seed=1, step=9, sample_ids=ids[order])
    torch.testing.assert_close(moved.z, whole.z[order])
    torch.testing.assert_close(moved.nll, whole.nll[order])
    assert not torch.allclose(model(x, seed=1, step=8, sample_ids=ids).z, whole.z)


def test_noise_from_generators() -> None:
    model, x = make(), images()
    first, second = (model(x, generator=torch.Generator().manual_seed(5)).z for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(model(x).z, model(x).z)
    torch.manual_seed(5)
    first = model.sample(4)
    torch.manual_seed(5)
    assert torch.equal(model.sample(4), first)


@torch.no_grad()
def test_every_call_passes_the_noise_on() -> None:
    model, x = make(dtype=torch.float64), images(dtype=torch.float64)
    calls = {
        "forward": lambda **k: model(x, **k).z,
        "elbo": lambda **k: model.elbo(x, **k),
        "marginal": lambda **k: model.marginal_log_likelihood(x, 2, **k),
        "sample": lambda **k: model.sample(5, **k),
    }
    ids = torch.tensor([9, 3, 8, 1, 4])
    for name, call in calls.items():
        drawn = [
            call(seed=1),
            call(seed=2),
            call(seed=1, step=7),
            call(seed=1, sample_ids=ids),
            call(generator=torch.Generator().manual_seed(1)),
        ]
        for index, one in enumerate(drawn):
            assert not any(torch.allclose(one, other) for other in drawn[:index]), name
        assert torch.equal(call(generator=torch.Generator().manual_seed(1)), drawn[-1])
        assert torch.equal(call(seed=torch.tensor([1]), sample_ids=torch.arange(5)), drawn[0])


def test_sample_decodes_the_noise() -> None:
    model = make()
    whole = model.sample(6, seed=2)
    assert whole.shape == (6, 1, 4, 4)
    assert not whole.requires_grad
    assert 0.0 <= whole.min() <= whole.max() <= 1.0
    part = model.sample(2, seed=2, sample_ids=torch.tensor([5, 1]))
    torch.testing.assert_close(part, whole[[5, 1]])
    assert model.sample(0).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_interpolation_ends_at_the_reconstructions(path: Any) -> None:
    model = make()
    a, b = images()[:2], images()[2:4]
    result = model.interpolate(a, b, 7, path=path)
    assert result.shape == (2, 7, 1, 4, 4)
    for image, end in ((a, 0), (b, -1)):
        expected = model.decode(model.encode(image).latent_dist.mode()).sample
        torch.testing.assert_close(result[:, end], expected)


def test_slerp() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[0.0, 3.0], [2.0, 0.0], [4.0, 0.0], [-1.0, 0.0]])
    middle = slerp(a, b, 3)[:, 1]
    root = math.sqrt(0.5)
    expected = torch.tensor([[2 * root, 2 * root], [1.5, 0.0], [2.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(middle, expected)


def test_half_types_and_autocast() -> None:
    output = make(dtype=torch.bfloat16)(images(dtype=torch.bfloat16), seed=1)
    assert output.z.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images(), seed=1, free_bits=0.1)
    output.loss.backward()
    assert output.kl.dtype == output.nll.dtype == torch.float32
    torch.testing.assert_close(
        output.loss, model(images(), seed=1, free_bits=0.1).loss, rtol=0.01, atol=0
    )


def test_empty_batch_and_nan() -> None:
    model = make()
    assert model.elbo(images(batch=0)).shape == (0,)
    assert model.marginal_log_likelihood(images(batch=0), 3).shape == (0,)
    x = images()
    x[2] = math.nan
    model.check_range = False
    finite = model.elbo(x, seed=1).isfinite()
    assert finite.tolist() == [True, True, False, True, True]


def test_compiles_without_graph_breaks() -> None:
    config = VAEConfig((1, 8, 8), 3, hidden=(4,), likelihood="gaussian", scale="learned")
    model = make(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch, beta in ((4, 1.0), (6, 0.5)):
        x = images(config, batch)
        expected = model(x, beta=beta, free_bits=0.05, seed=1, step=batch)
        expected.loss.backward()
        grads = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        output = compiled(x, beta=beta, free_bits=0.05, seed=1, step=batch)
        output.loss.backward()
        torch.testing.assert_close(output.loss, expected.loss)
        torch.testing.assert_close(output.z, expected.z)
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            torch.testing.assert_close(parameter.grad, grad)
        model.zero_grad()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: m(x, beta=-1.0), ValueError, "beta must be at least 0 .*; got -1.0"),
        (lambda m, x: m(x, beta=math.nan), ValueError, "beta .*got nan"),
        (lambda m, x: m(x, beta="1"), TypeError, "beta must be a number; got str"),
        (lambda m, x: m.elbo(x, free_bits=-0.1), ValueError, "free_bits must be .*; got -0.1"),
        (lambda m, x: m(x[0]), ValueError, r"x must have shape \(B, 1, 4, 4\); got \(1, 4, 4\)"),
        (lambda m, x: m(x.mT[:, :, :3]), ValueError, r"x must have .*got \(5, 1, 3, 4\)"),
        (lambda m, x: m((x * 255).byte()), TypeError, "x must be a floating .*got torch.uint8"),
        (lambda m, x: m(x.double()), TypeError, "x must be torch.float32, .*got torch.float64"),
        (lambda m, x: m(x.numpy()), TypeError, "x must be a tensor; got ndarray"),
        (lambda m, x: m(x.to("meta")), ValueError, "x must be on the device .*cpu; got meta"),
        (lambda m, x: m.decode(torch.zeros(2, 4)), ValueError, r"z must have shape \(B, 3\)"),
        (lambda m, x: m(x, seed=1.5), TypeError, "seed must be an integer .*got float"),
        (lambda m, x: m(x, sample_ids=torch.arange(4)), ValueError, r"sample_ids .*\(5,\)"),
        (lambda m, x: m(x, step=-1), ValueError, r"step must be in .*got -1"),
        (lambda m, x: m.marginal_log_likelihood(x, 0), ValueError, "samples .*at least 1; got 0"),
        (lambda m, x: m.marginal_log_likelihood(x, 2.0), TypeError, "samples .*got float"),
        (lambda m, x: m.marginal_log_likelihood(x, 2, chunk=0), ValueError, "chunk .*got 0"),
        (lambda m, x: m.sample(-1), ValueError, "n must be at least 0; got -1"),
        (lambda m, x: m.interpolate(x, x, 1), ValueError, "steps must be at least 2; got 1"),
        (lambda m, x: m.interpolate(x, x[:2], 3), ValueError, "b must have the shape of a"),
        (lambda m, x: m.interpolate(x, x, 3, path="arc"), ValueError, "path .*got 'arc'"),
        (lambda m, x: VAE({"latent_dim": 2}), TypeError, "config must be a VAEConfig; got dict"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(make(), images())
