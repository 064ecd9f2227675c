"""Terms of the training and evaluation objectives that are not ops."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian


def free_bits_kl(posterior: DiagonalGaussian, free_bits: float) -> Tensor:
    r"""KL to the standard normal in which each latent dim costs at least ``free_bits``.

    .. math::
        \frac1B \sum_b \mathrm{kl}_b
        = \sum_j \max\Big(\lambda,\ \frac1B \sum_b \mathrm{KL}_{bj}\Big)

    A dim whose batch mean is below :math:`\lambda` counts :math:`\lambda` in every sample and
    has no gradient; the others count as they are.

    Args:
        posterior: moments of shape (B, 2L).
        free_bits: :math:`\lambda`, in nats per latent dim.

    Returns:
        (B,) in nats, float32 (float64 for float64 moments).

    Paper: D. Kingma et al., "Improved variational inference with inverse autoregressive flow",
    NeurIPS 2016 (equation 15).
    """
    wide = torch.promote_types(posterior.mean.dtype, torch.float32)
    mean, logvar = posterior.mean.to(wide), posterior.logvar.to(wide)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    return torch.where(kl.mean(0) > free_bits, kl, free_bits).sum(1)


class LogMeanExp:
    """log of the mean of exp over dim 0 of a stream of blocks (K, B), without keeping them."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Take in a block (K, B)."""
        largest = values.amax(0)
        if self._count == 0:
            # Finite, so that rows of -inf alone give -inf and not the NaN of inf - inf.
            self._largest = torch.full_like(largest, torch.finfo(values.dtype).min)
            self._sum = torch.zeros_like(largest)
        largest = torch.maximum(self._largest, largest)
        self._sum = self._sum * (self._largest - largest).exp() + (values - largest).exp().sum(0)
        self._largest = largest
        self._count += values.shape[0]

    def result(self) -> Tensor:
        """(B,)."""
        return self._largest + (self._sum / self._count).log()
