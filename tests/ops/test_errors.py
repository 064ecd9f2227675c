"""Bad input: the error names the argument, what was expected and what came."""

from __future__ import annotations

import pytest
import torch

import vaekernels as vk

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: vk.rsample_kl([1.0], X), TypeError, "rsample_kl: mean must be a tensor; got list"),
        (lambda: vk.rsample_kl(X.int(), X), TypeError, "mean must be float64.*got torch.int32"),
        (lambda: vk.rsample_kl(X, X.int()), TypeError, "logvar must be float64.*got torch.int32"),
        (lambda: vk.rsample_kl(X[0, 0], X), ValueError, r"mean must have a batch dim"),
        (
            lambda: vk.rsample_kl(X, torch.zeros(2, 4)),
            ValueError,
            r"logvar must have the shape of mean, \(2, 3\); got \(2, 4\)",
        ),
        (
            lambda: vk.rsample_kl(X, X.to("meta")),
            ValueError,
            "logvar must be on the device of mean",
        ),
        (
            lambda: vk.rsample_kl(X, X, step=-1),
            ValueError,
            r"step must be in \[0, 2\*\*32\); got -1",
        ),
        (lambda: vk.rsample_kl(X, X, step=2**32), ValueError, "step must be in"),
        (lambda: vk.rsample_kl(X, X, seed=2**64), ValueError, "seed must fit into 64 bits"),
        (lambda: vk.rsample_kl(X, X, seed="1"), TypeError, "seed must be an integer"),
        (lambda: vk.rsample_kl(X, X, seed=torch.zeros(2)), TypeError, "seed must be an integer or"),
        (
            lambda: vk.rsample_kl(X, X, seed=1, generator=torch.Generator()),
            ValueError,
            "expected seed or generator, got both",
        ),
        (
            lambda: vk.rsample_kl(X, X, sample_ids=torch.arange(3)),
            ValueError,
            r"sample_ids must have shape \(2,\)",
        ),
        (
            lambda: vk.rsample_kl(X, X, sample_ids=torch.zeros(2)),
            TypeError,
            "sample_ids must be an int64 tensor",
        ),
        (lambda: vk.rsample_kl(X, X, logvar_clamp=(1.0, 0.0)), ValueError, "logvar_clamp"),
        (lambda: vk.rsample_kl(X, X, logvar_clamp=5), TypeError, "logvar_clamp must be .*got 5"),
        (lambda: vk.rsample_kl(X, X, logvar_clamp=(1, 2, 3)), TypeError, "logvar_clamp must be"),
        (lambda: vk.rsample_kl(X, X, logvar_clamp="ab"), TypeError, "logvar_clamp must be"),
        (lambda: vk.DiagonalGaussian(X[:, :2], logvar_clamp=5), TypeError, "logvar_clamp must be"),
        (lambda: vk.rsample_kl(X, X, generator=3), TypeError, "generator must be a torch.Gen"),
        (lambda: vk.rsample_kl(X.to_sparse(), X), TypeError, "mean must be a dense tensor"),
        (lambda: vk.gaussian_kl(X, X.to_mkldnn()), TypeError, "logvar must be a dense tensor"),
        (lambda: vk.randn((2**40, 2**40), seed=1), ValueError, "shape must have less than"),
        (lambda: vk.randn((), seed=1), ValueError, "randn: shape must have a batch dim"),
        (
            lambda: vk.randn((2, -1), seed=1),
            ValueError,
            r"randn: shape must not have negative sizes; got \(2, -1\)",
        ),
        (lambda: vk.randn(5, seed=1), TypeError, "randn: shape must be a tuple of integers; got 5"),
        (lambda: vk.randn((2, 1.5), seed=1), TypeError, r"a tuple of integers; got \(2, 1.5\)"),
        (lambda: vk.rsample_kl(X, X, step=1.5), TypeError, "step must be an integer; got float"),
        (lambda: vk.randn((2,), seed=None), TypeError, "randn: seed must be an integer"),
        (lambda: vk.randn((2,), seed=1, dtype=torch.int64), TypeError, "randn: dtype must be"),
        (lambda: vk.bernoulli_nll(X, X.T), ValueError, "target must have the shape of logits"),
        (lambda: vk.bernoulli_nll(X, None), TypeError, "target must be a tensor; got NoneType"),
        (
            lambda: vk.gaussian_nll(X, X, torch.zeros(4)),
            ValueError,
            r"logvar must broadcast to the shape of mean, \(2, 3\); got \(4,\)",
        ),
        (lambda: vk.gaussian_nll(X, X, "a"), TypeError, "logvar must be a float or a tensor"),
        (lambda: vk.laplace_nll(X, X, -1.0), ValueError, "scale must be positive; got -1.0"),
        (lambda: vk.laplace_nll(X, X, 0.0), ValueError, "scale must be positive"),
        (lambda: vk.gaussian_kl(X, X, torch.zeros(7)), ValueError, "prior_mean must broadcast"),
        (lambda: vk.gaussian_kl(X, X, backend="gpu"), ValueError, "expected one of cpu, cuda"),
    ],
)
def test_message(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_autocast_is_honoured() -> None:
    """bfloat16 network outputs and float32 targets, as autocast makes them: float32 losses."""
    linear = torch.nn.Linear(8, 8)
    x = torch.rand(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(x)
        nll = vk.bernoulli_nll(out, x)
        z, kl = vk.rsample_kl(out, out, seed=0)
    assert out.dtype == z.dtype == torch.bfloat16
    assert nll.dtype == kl.dtype == torch.float32
    (nll + kl).sum().backward()
    assert linear.weight.grad is not None
