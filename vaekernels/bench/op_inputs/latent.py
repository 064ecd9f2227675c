"""Cases of the ops on rows: the latent ops and the likelihoods."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels import ops
from vaekernels.bench.op_inputs._case import OpCases

Shape = tuple[int, ...]

# Shapes of images, for the likelihoods.
_IMAGE_SHAPES: dict[str, Shape] = {
    "mnist_b128": (128, 1, 28, 28),
    "cifar_b128": (128, 3, 32, 32),
    "celeba_b64": (64, 3, 64, 64),
    "photo_256px_b8": (8, 3, 256, 256),
}


def _normal(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _uniform(shape: Shape, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _rsample_kl_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    mean, logvar = _normal(shape, generator), _normal(shape, generator) * 2.0 - 1.0
    return mean.to(dtype), logvar.to(dtype)


def _rsample_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    logvar = logvar.clamp(-30.0, 20.0)
    z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    kl = 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar)
    return z, kl.reshape(mean.shape[0], -1).sum(1)


def _gaussian_kl_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return tuple(_normal(shape, generator).to(dtype) for _ in range(4))


def _gaussian_kl(mean: Tensor, logvar: Tensor, prior_mean: Tensor, prior_logvar: Tensor) -> Tensor:
    ratio = logvar - prior_logvar
    kl = 0.5 * (ratio.exp() - 1.0 - ratio + (mean - prior_mean) ** 2 * (-prior_logvar).exp())
    return kl.reshape(mean.shape[0], -1).sum(1)


def _bernoulli_nll_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    logits, target = _normal(shape, generator) * 4.0, _uniform(shape, generator)
    return logits.to(dtype), target.to(dtype)


def _bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return nll.reshape(logits.shape[0], -1).sum(1)


def _image_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A target in the unit interval and a reconstruction near it."""
    target, noise = _uniform(shape, generator), _normal(shape, generator)
    return (target + 0.1 * noise).to(dtype), target.to(dtype)


def _gaussian_nll_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return *_image_inputs(shape, dtype, generator), torch.tensor(-1.5, dtype=dtype)


def _gaussian_nll(mean: Tensor, target: Tensor, logvar: Tensor) -> Tensor:
    nll = 0.5 * (math.log(2.0 * math.pi) + logvar + (target - mean) ** 2 * (-logvar).exp())
    return nll.reshape(mean.shape[0], -1).sum(1)


def _laplace_nll_inputs(
    shape: Shape, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, ...]:
    return *_image_inputs(shape, dtype, generator), torch.tensor(0.25, dtype=dtype)


def _laplace_nll(mean: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    nll = torch.log(2.0 * scale) + (target - mean).abs() / scale
    return nll.reshape(mean.shape[0], -1).sum(1)


CASES = (
    OpCases(
        "rsample_kl",
        _rsample_kl_inputs,
        ops.rsample_kl,
        _rsample_kl,
        (0, 1),
        deterministic_eager=False,
    ),
    OpCases("gaussian_kl", _gaussian_kl_inputs, ops.gaussian_kl, _gaussian_kl, (0, 1, 2, 3)),
    OpCases(
        "bernoulli_nll",
        _bernoulli_nll_inputs,
        ops.bernoulli_nll,
        _bernoulli_nll,
        (0,),
        shapes=_IMAGE_SHAPES,
    ),
    # One learned log variance.
    OpCases(
        "gaussian_nll",
        _gaussian_nll_inputs,
        ops.gaussian_nll,
        _gaussian_nll,
        (0, 2),
        shapes=_IMAGE_SHAPES,
    ),
    # One learned scale.
    OpCases(
        "laplace_nll",
        _laplace_nll_inputs,
        ops.laplace_nll,
        _laplace_nll,
        (0, 2),
        shapes=_IMAGE_SHAPES,
    ),
)
