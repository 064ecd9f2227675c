"""More than 2**31 elements: offsets are 64-bit."""

from __future__ import annotations

import math

import pytest
import torch

import vaekernels as vk
from tests.ops.oracle import last_normals
from vaekernels.backends import extension

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension"),
]

LENGTH = 2**31 + 12


def test_a_row_reduction_over_expanded_rows() -> None:
    """Stride 0 holds no memory."""
    zeros = torch.zeros(1, 1).expand(1, LENGTH)
    nll = vk.bernoulli_nll(zeros, zeros)
    torch.testing.assert_close(nll, torch.tensor([LENGTH * math.log(2.0)]), rtol=1e-6, atol=0)


def test_the_last_elements_of_a_long_row_of_noise() -> None:
    got = vk.randn((1, LENGTH), seed=5, dtype=torch.bfloat16)[0, -4:]
    assert torch.equal(got, last_normals(LENGTH, seed=5).bfloat16())
