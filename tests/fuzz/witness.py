"""The ops in plain PyTorch, written without this package's reference backend."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str | None, Callable[[Tensor, float], Tensor]] = {
    None: lambda y, slope: y,
    "relu": lambda y, slope: F.relu(y),
    "silu": lambda y, slope: F.silu(y),
    "leaky_relu": F.leaky_relu,
}

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]
CONVOLUTIONS: dict[str, Convolution] = {
    "conv3x3": lambda x, w, b: F.conv2d(x, w, b, padding=1),
    "upsample_conv3x3": lambda x, w, b: F.conv2d(
        F.interpolate(x, scale_factor=2.0, mode="nearest"), w, b, padding=1
    ),
    "downsample_conv3x3 asymmetric": lambda x, w, b: F.conv2d(
        F.pad(x, (0, 1, 0, 1)), w, b, stride=2
    ),
    "downsample_conv3x3 symmetric": lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
    "downsample_conv4x4": lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
    "conv_transpose4x4": lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
}


def per_sample(t: Tensor) -> Tensor:
    return t.flatten(1).sum(1)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    return per_sample(0.5 * (mean**2 + logvar.exp() - 1.0 - logvar))


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    return per_sample(F.binary_cross_entropy_with_logits(logits, target, reduction="none"))


def gaussian_nll(mean: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    squares = (target - mean) ** 2 * (-logvar).exp()
    return per_sample(0.5 * (squares + logvar + math.log(2.0 * math.pi)))


def laplace_nll(mean: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    return per_sample((target - mean).abs() / scale + torch.log(2.0 * scale))
