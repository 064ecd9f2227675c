"""The layers of the autoencoders compared with the equivalent PyTorch of their docstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk
from tests.models.autoencoders import randomised
from vaekernels.tiling.moments import GroupStatistics

CHANNELS = 16


def _resnet(m: Any, x: Tensor) -> Tensor:
    h = m.conv1(F.silu(m.norm1(x)))
    return m.conv2(F.silu(m.norm2(h))) + (x if m.conv_shortcut is None else m.conv_shortcut(x))


def _attention(m: Any, x: Tensor) -> Tensor:
    n = m.group_norm(x).flatten(2).transpose(1, 2)
    q, k, v = m.to_q(n), m.to_k(n), m.to_v(n)
    weights = (q @ k.transpose(1, 2) / CHANNELS**0.5).softmax(-1)
    return x + m.to_out[0](weights @ v).transpose(1, 2).unflatten(2, x.shape[2:])


def _upsample(m: Any, x: Tensor) -> Tensor:
    return m.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _downsample(m: Any, x: Tensor) -> Tensor:
    return m.conv(F.pad(x, (0, 1, 0, 1)))


def _downsample_symmetric(m: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, m.conv.weight, m.conv.bias, stride=2, padding=1)


def _tiny(m: Any, x: Tensor) -> Tensor:
    if m.pool is not None:
        x = x + m.pool(x)
    return F.relu(m.conv(x) + x)


def _group_norm_silu(m: Any, x: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, 4, m.weight, m.bias, 1e-6))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Tensor], Tensor]]] = {
    "group_norm_silu": (lambda: vk.nn.GroupNormSiLU(4, CHANNELS), _group_norm_silu),
    "resnet": (lambda: vk.nn.ResnetBlock(CHANNELS, groups=4), _resnet),
    "resnet, other channels": (lambda: vk.nn.ResnetBlock(CHANNELS, 24, groups=4), _resnet),
    "attention": (lambda: vk.nn.AttentionBlock(CHANNELS, groups=4), _attention),
    "upsample": (lambda: vk.nn.Upsample(CHANNELS, 8), _upsample),
    "downsample": (lambda: vk.nn.Downsample(CHANNELS), _downsample),
    "downsample, symmetric": (
        lambda: vk.nn.Downsample(CHANNELS, 8, padding="symmetric", bias=False),
        _downsample_symmetric,
    ),
    "tiny": (lambda: vk.nn.TinyBlock(CHANNELS), _tiny),
    "tiny, pooled": (lambda: vk.nn.TinyBlock(CHANNELS, pooled=True), _tiny),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str) -> None:
    make, plain = LAYERS[name]
    layer = randomised(make())
    x = torch.randn(2, CHANNELS, 9, 7)
    results = []
    for function in (layer, lambda x: plain(layer, x)):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    for got, expected in zip(*results, strict=True):
        assert (got - expected).abs().max() <= 5e-5 * expected.abs().max()


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_attention_in_chunks(chunk: int) -> None:
    layer = randomised(vk.nn.AttentionBlock(CHANNELS, groups=4))
    x = torch.randn(2, CHANNELS, 9, 7)
    statistics = GroupStatistics(layer.group_norm)
    statistics.add(x)
    with torch.no_grad():
        expected = layer(x)
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer.forward_in_chunks(x, statistics.affine(), chunk), expected)


def test_other_paddings_are_rejected() -> None:
    with pytest.raises(ValueError, match="Downsample: padding must be .*; got 'left'"):
        vk.nn.Downsample(16, padding="left")
