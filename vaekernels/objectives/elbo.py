"""The negative evidence lower bound, with a weight of the KL, its warm-up, and free bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.objectives.base import Batch, LossTerms, Objective


class NegativeELBO(NamedTuple):
    """The result of :func:`negative_elbo`; ``cost``, ``nll`` and ``kl`` are (B,) in nats."""

    cost: Tensor
    nll: Tensor
    kl: Tensor
    z: Tensor
    raw: Tensor


def negative_elbo(
    model: Any,
    x: Tensor,
    *,
    beta: float = 1.0,
    free_bits: float = 0.0,
    seed: int | Tensor | None = None,
    step: int = 0,
    sample_ids: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> NegativeELBO:
    r"""The negative ELBO of each image, from one sample of its posterior.

    .. math::
        \mathrm{cost}_b = -\log p(x_b \mid z_b) + \beta\, \mathrm{KL}(q(z \mid x_b)\ \|\ p(z))

    Args:
        model: ``encode(x).latent_dist`` is its posterior, ``decoder(z)`` the parameters of
            p(x | z), and ``likelihood.nll(raw, x)`` their negative log-likelihood of ``x``.
        x: (B, C, H, W).
        beta: weight of the KL.
        free_bits: as in :func:`free_bits_kl`; 0: none.
        seed: of the noise, as in :func:`vk.rsample_kl`.
        step: a second key for the noise.
        sample_ids: (B,) int64, each image's identity in the noise.
        generator: where the seed is drawn from when ``seed`` is None.

    Returns:
        A :class:`NegativeELBO`: the cost; the negative log-likelihood and the KL it consists of,
        before beta and free bits; the sample ``z``; and ``raw``, which ``z`` decodes to.
    """
    posterior = model.encode(x).latent_dist
    z, kl = posterior.rsample_kl(seed=seed, step=step, sample_ids=sample_ids, generator=generator)
    raw = model.decoder(z)
    nll = model.likelihood.nll(raw, x)
    # The fused op sums the KL over the dims, which free bits need one by one.
    paid = free_bits_kl(posterior, free_bits) if free_bits > 0 else kl
    return NegativeELBO(nll + beta * paid, nll, kl, z, raw)


@dataclass(frozen=True)
class ELBO(Objective):
    """The mean of :func:`negative_elbo`, in which the weight of the KL may grow from 0.

    Attributes:
        beta: weight of the KL term; 1 is the ELBO.
        free_bits: nats of KL per latent dim that cost nothing.
        warmup_steps: the weight grows linearly from 0 to ``beta`` over these.
        seed: of the noise.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    warmup_steps: float = 0.0
    seed: int = 0

    def __call__(self, model: Any, batch: Batch, step: int) -> LossTerms:
        out = negative_elbo(
            model,
            batch.x,
            beta=self.beta_at(step),
            free_bits=self.free_bits,
            seed=self.seed,
            step=step,
            sample_ids=batch.ids,
        )
        return LossTerms(out.cost.mean(), {"nll": out.nll, "kl": out.kl})

    def beta_at(self, step: int) -> float:
        """The weight of the KL term at ``step``."""
        if not self.warmup_steps:
            return self.beta
        return self.beta * min(1.0, step / self.warmup_steps)

    def settings(self, step: int) -> dict[str, float]:
        return {"beta": self.beta_at(step)}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The ELBO itself, whatever ``beta`` and ``free_bits`` are."""
        return {"elbo": -(means["nll"] + means["kl"])}


def kl_of_dims(posterior: DiagonalGaussian) -> Tensor:
    r"""KL to the standard normal of each latent dim.

    .. math::
        \mathrm{KL}_{bj} = \tfrac12 (\mu_{bj}^2 + e^{\ell_{bj}} - 1 - \ell_{bj})

    Returns:
        The shape of ``posterior.mean``, in nats, float32 (float64 for float64 moments).
    """
    wide = torch.promote_types(posterior.mean.dtype, torch.float32)
    mean, logvar = posterior.mean.to(wide), posterior.logvar.to(wide)
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


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
    kl = kl_of_dims(posterior)
    return torch.where(kl.mean(0) > free_bits, kl, free_bits).sum(1)
