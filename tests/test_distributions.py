"""``vk.DiagonalGaussian`` compared with torch.distributions and with diffusers' semantics."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import kl_divergence

import vaekernels as vk


@pytest.mark.parametrize("shape", ((4, 6), (4, 6, 5), (2, 8, 3, 5), (2, 4, 3, 2, 2)))
def test_any_event_dims(shape: tuple[int, ...]) -> None:
    moments = torch.randn(shape, dtype=torch.float64)
    ours = vk.DiagonalGaussian(moments)
    theirs = ours.to_torch()
    assert ours.mean.shape == (shape[0], shape[1] // 2, *shape[2:])
    value = torch.randn_like(ours.mean)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    torch.testing.assert_close(ours.nll(value), -theirs.log_prob(value))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    other = vk.DiagonalGaussian(torch.randn(shape, dtype=torch.float64))
    torch.testing.assert_close(ours.kl(other), kl_divergence(theirs, other.to_torch()))
    prior = vk.DiagonalGaussian(torch.zeros_like(moments))
    torch.testing.assert_close(ours.kl(), ours.kl(prior))
    z, kl = ours.rsample_kl(seed=3)
    torch.testing.assert_close(kl, ours.kl())
    assert torch.equal(z, ours.sample(seed=3))
    assert torch.equal(ours.mode(), ours.mean)


def test_the_halves_of_moments_are_views_and_gradients_reach_them() -> None:
    moments = torch.randn(3, 8, 4, 4, requires_grad=True)
    distribution = vk.DiagonalGaussian(moments)
    assert distribution.mean._base is moments
    z, kl = distribution.rsample_kl(seed=0)
    (z.sum() + kl.sum()).backward()
    assert moments.grad is not None
    assert (moments.grad != 0).any(dim=(0, 2, 3)).all()


def test_from_mean_logvar_is_the_same() -> None:
    moments = torch.randn(3, 8, 4)
    split = vk.DiagonalGaussian.from_mean_logvar(*moments.chunk(2, dim=1))
    assert torch.equal(split.sample(seed=1), vk.DiagonalGaussian(moments).sample(seed=1))
    with pytest.raises(ValueError, match="logvar must have the shape of mean"):
        vk.DiagonalGaussian.from_mean_logvar(torch.zeros(2, 3), torch.zeros(2, 4))


def test_the_generator_is_honoured() -> None:
    distribution = vk.DiagonalGaussian(torch.randn(3, 8))
    draws = [distribution.sample(torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("draw", ("rsample_kl", "rsample", "sample"))
def test_noise_keywords_are_passed_on(draw: str) -> None:
    moments = torch.randn(3, 8, 4)
    distribution = vk.DiagonalGaussian(moments)
    for options in (
        {"seed": 7},
        {"seed": 7, "step": 5},
        {"seed": 7, "sample_ids": torch.tensor([9, 2, 4])},
        {"seed": torch.tensor(8), "step": 1, "sample_ids": torch.tensor([0, 0, 1])},
    ):
        z = getattr(distribution, draw)(**options)
        expected, _ = vk.rsample_kl(*moments.chunk(2, dim=1), **options)
        assert torch.equal(z[0] if draw == "rsample_kl" else z, expected)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_deterministic_mode_keeps_shape_device_and_dtype(dtype: torch.dtype) -> None:
    distribution = vk.DiagonalGaussian(torch.randn(3, 8, 2).to(dtype), deterministic=True)
    assert torch.equal(distribution.sample(), distribution.mean)
    assert torch.equal(distribution.var, torch.zeros(3, 4, 2, dtype=dtype))
    assert torch.equal(distribution.std, torch.zeros(3, 4, 2, dtype=dtype))
    for value in (distribution.kl(), distribution.nll(distribution.mean)):
        assert value.shape == (3,)
        assert value.dtype == torch.float32
        assert torch.equal(value, torch.zeros(3))
    assert distribution.kl().device == distribution.mean.device
    z, kl = distribution.rsample_kl()
    assert torch.equal(z, distribution.mean)
    assert torch.equal(kl, torch.zeros(3))


def test_invalid_moments() -> None:
    with pytest.raises(ValueError, match=r"moments must have shape \(B, 2C, ...\); got \(3, 7\)"):
        vk.DiagonalGaussian(torch.zeros(3, 7))
    with pytest.raises(TypeError, match="moments must be a floating tensor; got torch.int64"):
        vk.DiagonalGaussian(torch.zeros(3, 8, dtype=torch.int64))


def test_kl_clamps_both_distributions() -> None:
    """Log variances beyond the bounds, which differ between the distributions."""
    mean, logvar = torch.randn(2, 6, dtype=torch.float64), torch.tensor([[-50.0, -2, 0, 1, 25, 90]])
    logvar = logvar.double().expand(2, -1)
    clamps: list[tuple[float, float] | None] = [(-30.0, 20.0), (-1.0, 0.5), None]
    for clamp in clamps:
        for other_clamp in clamps:
            ours = vk.DiagonalGaussian.from_mean_logvar(mean, logvar / 2, logvar_clamp=clamp)
            other = vk.DiagonalGaussian.from_mean_logvar(-mean, logvar, logvar_clamp=other_clamp)
            bounds = [(-1e9, 1e9) if c is None else c for c in (clamp, other_clamp)]
            log_p, log_q = (logvar / 2).clamp(*bounds[0]), logvar.clamp(*bounds[1])
            expected = log_q - log_p - 1 + (log_p.exp() + (2 * mean) ** 2) / log_q.exp()
            torch.testing.assert_close(ours.kl(other), 0.5 * expected.sum(1))
            torch.testing.assert_close(ours.logvar, log_p)
            torch.testing.assert_close(ours.std, (0.5 * log_p).exp())
            prior = 0.5 * (mean**2 + log_p.exp() - 1 - log_p).sum(1)
            torch.testing.assert_close(ours.kl(), prior)
            torch.testing.assert_close(ours.rsample_kl(seed=0)[1], prior)


def test_the_mode_is_a_copy() -> None:
    """Its storage contains only the mean, so a saved mode is no larger."""
    for moments in (
        torch.randn(6, 8, 4, 4),
        torch.randn(6, 8, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.randn(6, 8),
    ):
        for deterministic in (False, True):
            posterior = vk.DiagonalGaussian(moments, deterministic=deterministic)
            for z in (posterior.mode(), posterior.sample(seed=0)):
                assert z.untyped_storage().nbytes() == 4 * z.numel()
                assert z.untyped_storage().data_ptr() != moments.untyped_storage().data_ptr()
    moments.requires_grad_()
    vk.DiagonalGaussian(moments).mode().sum().backward()
    assert moments.grad.sum() == 24
