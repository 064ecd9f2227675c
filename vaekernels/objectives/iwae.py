"""The importance weighted bound of the log likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaekernels.objectives.base import Batch, LossTerms, Objective
from vaekernels.ops import randn


def importance_weighted_bound(
    model: Any,
    x: Tensor,
    samples: int,
    *,
    seed: int | Tensor,
    step: int = 0,
    sample_ids: Tensor | None = None,
    chunk: int = 16,
) -> Tensor:
    r"""Log likelihood of each image by importance sampling from its posterior.

    .. math::
        \log \hat p_K(x) = \log \frac1K \sum_{k=1}^K
        \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    Args:
        model: as in :func:`~vaekernels.objectives.elbo.negative_elbo`.
        x: (B, C, H, W).
        samples: K.
        seed: of the noise.
        step: sample k has the noise of step ``step + k``.
        sample_ids: (B,) int64, each image's identity in the noise; None is ``arange(B)``.
        chunk: samples decoded at once.

    Returns:
        (B,) in nats, float32 (float64 for a float64 model). Gradients flow to the weights.

    Paper: Y. Burda, R. Grosse, R. Salakhutdinov, "Importance weighted autoencoders", 2015
    (equation 8).
    """
    posterior = model.encode(x).latent_dist
    dtype = torch.promote_types(posterior.mean.dtype, torch.float32)
    mean, logvar = posterior.mean.to(dtype), posterior.logvar.to(dtype)
    std = (0.5 * logvar).exp()
    estimate = LogMeanExp()
    for first in range(0, samples, chunk):
        steps = range(step + first, step + min(first + chunk, samples))
        eps = torch.stack(
            [
                randn(
                    mean.shape,
                    seed=seed,
                    step=one,
                    sample_ids=sample_ids,
                    device=mean.device,
                    dtype=dtype,
                )
                for one in steps
            ]
        )
        z = mean + std * eps
        # log p(z) - log q(z | x), from the noise itself: (z - mean) / std would cancel.
        log_ratio = 0.5 * (eps.square() - z.square() + logvar).sum(2)
        raw = model.decoder(z.flatten(0, 1).to(posterior.mean.dtype))
        target = x.expand(len(steps), *x.shape).flatten(0, 1)
        nll = model.likelihood.nll(raw, target).view(len(steps), -1)
        estimate.add(log_ratio - nll)
    return estimate.result()


@dataclass(frozen=True)
class IWAE(Objective):
    """The negative mean of :func:`importance_weighted_bound`.

    Attributes:
        samples: K: samples of each image's posterior, decoded at once.
        seed: of the noise.
    """

    samples: int
    seed: int = 0

    def __call__(self, model: Any, batch: Batch, step: int) -> LossTerms:
        bound = importance_weighted_bound(
            model,
            batch.x,
            self.samples,
            seed=self.seed,
            step=step * self.samples % 2**32,
            sample_ids=batch.ids,
            chunk=self.samples,
        )
        return LossTerms(-bound.mean(), {"iwae": bound})


class LogMeanExp:
    """log of the mean of exp over dim 0 of a stream of blocks (K, B), without keeping them."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Add a block (K, B)."""
        # The result does not depend on this offset: it needs no gradient.
        largest = values.detach().amax(0)
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
