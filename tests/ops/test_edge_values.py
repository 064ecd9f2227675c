"""Infinities, NaN, huge and denormal numbers in the latent ops give what plain PyTorch gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import edges
from vaekernels.backends import registry

BACKENDS = ("reference", "cpu")
DTYPES = (torch.float32, torch.float64)


def _skip_if_refused(backend: str, op: str) -> None:
    if registry.refusals(backend, op, "cpu", torch.float32):
        pytest.skip(f"{backend} does not run here")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", edges.PLAIN)
def test_row_ops(op: str, dtype: torch.dtype) -> None:
    _skip_if_refused("cpu", op)
    edges.check_row_op(op, "cpu", dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rsample_kl(backend: str, dtype: torch.dtype) -> None:
    _skip_if_refused(backend, "rsample_kl")
    edges.check_rsample_kl(backend, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_flows_where_logvar_is_clamped(backend: str) -> None:
    _skip_if_refused(backend, "rsample_kl")
    logvar = torch.tensor([[-31.0, -30.0, 0.5, 20.0, 21.0]], requires_grad=True)
    z, kl = vk.rsample_kl(torch.ones(1, 5), logvar, seed=1, backend=backend)
    (grad,) = torch.autograd.grad(z.sum() + kl.sum(), logvar)
    assert grad[0, [0, 4]].tolist() == [0.0, 0.0]
    assert (grad[0, 1:4] != 0.0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", ((3, 5), (40, 3), (2, 700)))
def test_an_unused_output_is_absent(backend: str, shape: tuple[int, ...]) -> None:
    """Not a gradient of 0, which an infinity turns into NaN."""
    _skip_if_refused(backend, "rsample_kl")

    def leaf(value: float) -> Tensor:
        return torch.full(shape, value, requires_grad=True)

    mean, logvar = leaf(math.inf), leaf(100.0)
    z, _ = vk.rsample_kl(mean, logvar, seed=1, logvar_clamp=None, backend=backend)
    ones, slopes = torch.autograd.grad(z.sum(), (mean, logvar))
    eps = vk.randn(shape, seed=1, dtype=torch.float32)
    assert (ones == 1.0).all()
    torch.testing.assert_close(slopes, 0.5 * math.exp(50.0) * eps)
    logvar = leaf(700.0)  # an infinite deviation in float32
    _, kl = vk.rsample_kl(leaf(0.0), logvar, seed=1, logvar_clamp=None, backend=backend)
    (slopes,) = torch.autograd.grad(kl.sum(), logvar)
    assert (slopes == math.inf).all()
