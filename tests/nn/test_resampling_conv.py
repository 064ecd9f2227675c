"""Layers: torch's own in everything but which kernels run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk

LAYERS = {
    "down": (vk.nn.DownsampleConv4x4, torch.nn.Conv2d),
    "up": (vk.nn.ConvTranspose4x4, torch.nn.ConvTranspose2d),
}
ACTIVATIONS = {None: lambda x: x, "relu": F.relu, "silu": F.silu, "leaky_relu": F.leaky_relu}


def pair(kind: str, **options: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    mine, theirs = LAYERS[kind]
    torch.manual_seed(3)
    layer = mine(5, 7, **options)
    torch.manual_seed(3)
    bias = options.get("bias", True)
    return layer, theirs(5, 7, kernel_size=4, stride=2, padding=1, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_parameters_and_state_dict_are_those_of_torch(kind: str, bias: bool) -> None:
    layer, theirs = pair(kind, bias=bias)
    assert isinstance(layer, type(theirs))
    state = layer.state_dict()
    assert list(state) == list(theirs.state_dict())
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())
    theirs.load_state_dict(state)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_same_results_and_gradients(kind: str, activation: str | None, training: bool) -> None:
    layer, theirs = pair(kind, activation=activation)
    x = torch.randn(2, 5, 8, 6, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(training):
        got, expected = layer(x), ACTIVATIONS[activation](theirs(x))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    if training:
        grads = [
            torch.autograd.grad(y.square().sum(), list(module.parameters()))
            for y, module in ((got, layer), (expected, theirs))
        ]
        for mine, other in zip(*grads, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_slope_device_dtype_and_text() -> None:
    layer = vk.nn.DownsampleConv4x4(
        2, 3, activation="leaky_relu", negative_slope=0.2, device="cpu", dtype=torch.float64
    )
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    expected = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride=2, padding=1), 0.2)
    torch.testing.assert_close(layer(x), expected)
    assert "kernel_size=(4, 4), stride=(2, 2)" in repr(layer)
    assert "activation=leaky_relu" in repr(layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_unknown_activation(kind: str) -> None:
    with pytest.raises(ValueError, match=r"activation must be None, .*; got 'gelu'"):
        pair(kind, activation="gelu")


def test_the_order_of_flatten_does_not_depend_on_the_layout() -> None:
    x = torch.randn(2, 3, 4, 5)
    last: Tensor = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.flatten(1), x.flatten(1))
