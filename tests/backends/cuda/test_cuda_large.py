"""The latent ops on rows of more than 2^31 elements: the kernels' offsets are 64-bit."""

from __future__ import annotations

import math

import pytest
import torch

import vaekernels as vk
from tests.ops.oracle import last_normals

pytestmark = [pytest.mark.cuda, pytest.mark.parametrize("backend", ["cuda", "triton"])]

LENGTH = 2**31 + 12


def test_the_last_elements_of_a_long_row_of_noise(backend: str) -> None:
    got = vk.randn((1, LENGTH), seed=5, dtype=torch.bfloat16, device="cuda", backend=backend)
    assert torch.equal(got[0, -4:].cpu(), last_normals(LENGTH, seed=5).bfloat16())


def test_the_last_elements_of_a_long_sample(backend: str) -> None:
    zeros = torch.zeros(1, LENGTH, dtype=torch.bfloat16, device="cuda")
    z, kl = vk.rsample_kl(zeros, zeros, seed=5, backend=backend)
    assert torch.equal(z[0, -4:].cpu(), last_normals(LENGTH, seed=5).bfloat16())
    assert kl.item() == 0.0


def test_a_long_row_and_its_gradient(backend: str) -> None:
    """The second row, behind as many elements again."""
    logits = torch.zeros(2, LENGTH, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    nll = vk.bernoulli_nll(logits, torch.zeros_like(logits), backend=backend)
    expected = torch.full((2,), LENGTH * math.log(2.0))
    torch.testing.assert_close(nll.detach().cpu(), expected, rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(nll[1], logits)
    assert grad[0, -1].item() == 0.0
    assert grad[1, -4:].tolist() == [0.5] * 4
    assert (grad[1] == 0.5).all()
