"""``vk.detect_nonfinite`` finds the first op that produces a NaN or an infinity."""

from __future__ import annotations

import pytest
import torch

import vaekernels as vk


def test_it_names_the_first_op() -> None:
    x = torch.tensor([1.0, -1.0])
    with (
        pytest.raises(vk.NonFiniteError, match=r"aten\.log.*1 non-finite elements of 2.*\[-1, 1\]"),
        vk.detect_nonfinite(),
    ):
        (x.log() * 2).sum()


def test_it_names_an_op_of_this_package() -> None:
    mean = torch.full((2, 3), 3e38)
    blamed = pytest.raises(vk.NonFiniteError, match="rsample_kl|mul")
    with blamed, vk.detect_nonfinite():
        vk.rsample_kl(mean, torch.zeros(2, 3), seed=0)


def test_it_checks_backward() -> None:
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(vk.NonFiniteError, match="backward|div|mul|sqrt"), vk.detect_nonfinite():
        x.sqrt().sum().backward()


def test_nonfinite_inputs_are_no_error() -> None:
    x = torch.tensor([float("nan"), 1.0])
    with vk.detect_nonfinite():
        assert torch.isnan(x * 2).any()


def test_finite_values_are_no_error() -> None:
    mean = torch.randn(4, 5, requires_grad=True)
    with vk.detect_nonfinite():
        z, kl = vk.rsample_kl(mean, torch.zeros(4, 5), seed=0)
        (z.sum() + kl.sum()).backward()
