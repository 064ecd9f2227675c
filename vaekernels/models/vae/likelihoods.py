"""p(x | z) of a VAE: from the decoder's output to a loss and to an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vaekernels.models.image_range import UNBOUNDED, Range
from vaekernels.models.vae.config import VAEConfig
from vaekernels.ops.bernoulli_nll import bernoulli_nll
from vaekernels.ops.gaussian_nll import gaussian_nll
from vaekernels.ops.laplace_nll import laplace_nll


def build_likelihood(config: VAEConfig) -> Likelihood:
    """The likelihood of ``config``."""
    if config.likelihood == "bernoulli":
        return Bernoulli()
    if config.likelihood == "gaussian":
        return Gaussian(config.scale)
    return Laplace(config.scale)


class Likelihood(nn.Module):
    """A distribution of images, independent in each pixel.

    Attributes:
        support: the values that pixels have.
    """

    support: Range = UNBOUNDED

    def nll(self, raw: Tensor, target: Tensor) -> Tensor:
        """(B,) negative log-likelihood of ``target`` in nats; ``raw`` is the decoder's output."""
        raise NotImplementedError

    def mean(self, raw: Tensor) -> Tensor:
        """The mean image, in the shape of ``raw``."""
        return raw


class Bernoulli(Likelihood):
    """Pixels in [0, 1]; the decoder gives logits."""

    support = (0.0, 1.0)

    def nll(self, raw: Tensor, target: Tensor) -> Tensor:
        return bernoulli_nll(raw, lying_as(raw, target))

    def mean(self, raw: Tensor) -> Tensor:
        return raw.sigmoid()


class ScaledLikelihood(Likelihood):
    """A location family: the decoder gives the mean, all pixels share one scale.

    Args:
        scale: a positive number, or ``"learned"``: a parameter ``log_scale``, 0 at first.
    """

    def __init__(self, scale: float | str) -> None:
        super().__init__()
        self.log_scale: float | nn.Parameter = (
            math.log(scale) if isinstance(scale, float) else nn.Parameter(torch.zeros(()))
        )


class Gaussian(ScaledLikelihood):
    """Normal(raw, scale) in each pixel."""

    def nll(self, raw: Tensor, target: Tensor) -> Tensor:
        return gaussian_nll(raw, lying_as(raw, target), 2.0 * self.log_scale)


class Laplace(ScaledLikelihood):
    """Laplace(raw, scale) in each pixel."""

    def nll(self, raw: Tensor, target: Tensor) -> Tensor:
        target = lying_as(raw, target)
        if isinstance(self.log_scale, Tensor):
            return laplace_nll(raw, target, self.log_scale.exp())
        return laplace_nll(raw, target, math.exp(self.log_scale))


def lying_as(raw: Tensor, target: Tensor) -> Tensor:
    """``target``, channels_last in memory where ``raw`` is.

    A convolutional decoder's output is. The losses take any strides, but two images that lie alike
    twice as fast, which is more than the copy costs.
    """
    if raw.ndim == 4 and raw.is_contiguous(memory_format=torch.channels_last):
        return target.contiguous(memory_format=torch.channels_last)
    return target
