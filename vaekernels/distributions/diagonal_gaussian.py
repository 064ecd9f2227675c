"""``vk.DiagonalGaussian``: a Gaussian posterior with any event dims."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaekernels.ops._checks import checked_clamp
from vaekernels.ops.gaussian_kl import gaussian_kl
from vaekernels.ops.gaussian_nll import gaussian_nll
from vaekernels.ops.rsample_kl import rsample_kl


class DiagonalGaussian:
    r"""A Gaussian with diagonal covariance, given by its moments.

    .. math::
        p(z) = \prod_i \mathcal N(z_i;\ \mu_i,\ e^{\ell_i})

    The methods are those of diffusers' ``DiagonalGaussianDistribution`` (``sample``, ``mode``,
    ``kl``, ``nll``) and of ``torch.distributions`` (``rsample``, ``log_prob``, ``entropy``).
    KL divergences, likelihoods and entropies are summed over all dims but the first.

    Args:
        moments: (B, 2C, ...): mean and log variance, concatenated in dim 1. Both are used as views,
            without a copy.
        deterministic: whether the variance is zero; samples are then the mean, and the KL is zero.
        logvar_clamp: bounds of the log variance, or None.

    Raises:
        TypeError: ``moments`` is not a floating tensor.
        ValueError: ``moments`` has fewer than two dims, or an odd size in dim 1.
    """

    def __init__(
        self,
        moments: Tensor,
        deterministic: bool = False,
        logvar_clamp: tuple[float, float] | None = (-30.0, 20.0),
    ) -> None:
        if not isinstance(moments, Tensor) or not moments.is_floating_point():
            got = moments.dtype if isinstance(moments, Tensor) else type(moments).__name__
            raise TypeError(f"DiagonalGaussian: moments must be a floating tensor; got {got}")
        if moments.ndim < 2 or moments.shape[1] % 2:
            raise ValueError(
                "DiagonalGaussian: moments must have shape (B, 2C, ...); "
                f"got {tuple(moments.shape)}"
            )
        mean, logvar = moments.chunk(2, dim=1)
        self._init(mean, logvar, deterministic, logvar_clamp)

    @classmethod
    def from_mean_logvar(
        cls,
        mean: Tensor,
        logvar: Tensor,
        deterministic: bool = False,
        logvar_clamp: tuple[float, float] | None = (-30.0, 20.0),
    ) -> DiagonalGaussian:
        """Construct the distribution from mean and log variance, two tensors of one shape."""
        if mean.shape != logvar.shape:
            raise ValueError(
                "DiagonalGaussian: logvar must have the shape of mean, "
                f"{tuple(mean.shape)}; got {tuple(logvar.shape)}"
            )
        self = cls.__new__(cls)
        self._init(mean, logvar, deterministic, logvar_clamp)
        return self

    def _init(
        self,
        mean: Tensor,
        logvar: Tensor,
        deterministic: bool,
        logvar_clamp: tuple[float, float] | None,
    ) -> None:
        if logvar_clamp is not None:
            checked_clamp("DiagonalGaussian", logvar_clamp)
        self.mean = mean
        self.deterministic = deterministic
        self.logvar_clamp = logvar_clamp
        self._unclamped_logvar = logvar

    @property
    def logvar(self) -> Tensor:
        """The clamped log variance."""
        if self.logvar_clamp is None:
            return self._unclamped_logvar
        return self._unclamped_logvar.clamp(*self.logvar_clamp)

    @property
    def var(self) -> Tensor:
        """The variance; zero in deterministic mode."""
        return torch.zeros_like(self.mean) if self.deterministic else self.logvar.exp()

    @property
    def std(self) -> Tensor:
        """The standard deviation; zero in deterministic mode."""
        return torch.zeros_like(self.mean) if self.deterministic else (0.5 * self.logvar).exp()

    def rsample_kl(
        self,
        *,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A reparameterised sample and the KL divergence; see :func:`vk.rsample_kl`."""
        if self.deterministic:
            return self.mode(), self.kl()
        return rsample_kl(
            self.mean,
            self._unclamped_logvar,
            seed=seed,
            step=step,
            sample_ids=sample_ids,
            generator=generator,
            logvar_clamp=self.logvar_clamp,
        )

    def rsample(
        self,
        generator: torch.Generator | None = None,
        *,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """A reparameterised sample: gradients flow to the moments."""
        return self.rsample_kl(seed=seed, step=step, sample_ids=sample_ids, generator=generator)[0]

    def sample(
        self,
        generator: torch.Generator | None = None,
        *,
        seed: int | Tensor | None = None,
        step: int = 0,
        sample_ids: Tensor | None = None,
    ) -> Tensor:
        """A sample; differentiable, as in diffusers, unless under ``torch.no_grad()``."""
        return self.rsample(generator, seed=seed, step=step, sample_ids=sample_ids)

    def mode(self) -> Tensor:
        """A copy of the mean; ``mean`` itself is a view of the moments."""
        return self.mean.clone()

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL divergence from ``other``, or from the standard normal: (B,) in nats."""
        if self.deterministic:
            return self.mean.new_zeros(self.mean.shape[:1], dtype=self._sum_dtype)
        if other is None:
            return gaussian_kl(self.mean, self.logvar)
        return gaussian_kl(self.mean, self.logvar, other.mean, other.logvar)

    def nll(self, sample: Tensor) -> Tensor:
        """Negative log-likelihood of ``sample``: (B,) in nats; zero in deterministic mode."""
        if self.deterministic:
            return self.mean.new_zeros(self.mean.shape[:1], dtype=self._sum_dtype)
        return gaussian_nll(self.mean, sample, self.logvar)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value``: (B,) in nats."""
        return -self.nll(value)

    def entropy(self) -> Tensor:
        """Differential entropy: (B,) in nats."""
        per_element = 0.5 * (math.log(2.0 * math.pi) + 1.0 + self.logvar.to(self._sum_dtype))
        return per_element.flatten(1).sum(1)

    def to_torch(self) -> torch.distributions.Independent:
        """The equivalent distribution of ``torch.distributions``."""
        normal = torch.distributions.Normal(self.mean, (0.5 * self.logvar).exp())
        return torch.distributions.Independent(normal, self.mean.ndim - 1)

    @property
    def _sum_dtype(self) -> torch.dtype:
        return torch.promote_types(self.mean.dtype, torch.float32)

    def __repr__(self) -> str:
        return (
            f"DiagonalGaussian(shape={tuple(self.mean.shape)}, dtype={self.mean.dtype}, "
            f"device={self.mean.device}, deterministic={self.deterministic})"
        )
