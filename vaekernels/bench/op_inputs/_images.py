"""Shapes and values of images, for the likelihoods."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGE_SHAPES: dict[str, tuple[int, ...]] = {
    "mnist_b128": (128, 1, 28, 28),
    "cifar_b128": (128, 3, 32, 32),
    "celeba_b64": (64, 3, 64, 64),
    "photo_256px_b8": (8, 3, 256, 256),
}


def images(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A reconstruction in the open unit interval and a target like it."""
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (target + 0.1 * noise).to(dtype), target.to(dtype)
