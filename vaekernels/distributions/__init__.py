"""Distributions of latents."""

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian

__all__ = ["DiagonalGaussian"]
