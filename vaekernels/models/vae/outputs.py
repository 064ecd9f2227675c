"""What the methods of a VAE return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian


@dataclass
class EncoderOutput:
    """Result of ``encode``.

    Attributes:
        latent_dist: the posterior q(z | x), with event shape (L,), or (L, h, w) of images.
    """

    latent_dist: DiagonalGaussian


@dataclass
class TinyEncoderOutput:
    """Result of ``encode`` where there is no posterior.

    Attributes:
        latents: (B, L, h, w).
    """

    latents: Tensor


@dataclass
class DecoderOutput:
    """Result of ``decode``.

    Attributes:
        sample: (B, C, H, W), the mean image of p(x | z).
        raw: (B, C, H, W), the decoder's output itself, which the likelihood takes: logits for
            the Bernoulli; ``sample`` itself for the Gaussian, the Laplace and where there is no
            likelihood.
    """

    sample: Tensor
    raw: Tensor


@dataclass
class VAEOutput:
    """Result of a VAE's forward pass.

    Attributes:
        loss: the negative ELBO, averaged over the batch: a scalar in nats per image.
        reconstruction: (B, C, H, W), the mean image decoded from ``z``.
        nll: (B,) negative log-likelihood of each image, in nats.
        kl: (B,) KL of each posterior from the prior, in nats, before beta and free bits.
        z: (B, L), the sampled latents.
    """

    loss: Tensor
    reconstruction: Tensor
    nll: Tensor
    kl: Tensor
    z: Tensor
