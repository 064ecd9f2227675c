"""``vk.gaussian_kl``: KL divergence between diagonal Gaussians."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.reference import gaussian_kl as reference
from vaekernels.ops._checks import broadcast, check_like, check_rows
from vaekernels.ops._row_sum import define_row_sum

define_row_sum(reference.gaussian_kl)


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | float | None = None,
    prior_logvar: Tensor | float | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    r"""KL divergence of a diagonal Gaussian from another, summed over all dims but the first.

    .. math::
        \mathrm{KL}_b = \tfrac12 \sum_i \left( e^{\ell - \ell_p} - 1 - (\ell - \ell_p)
        + (\mu - \mu_p)^2 e^{-\ell_p} \right)

    Equivalent PyTorch::

        ratio = logvar - prior_logvar
        kl = 0.5 * (ratio.exp() - 1 - ratio + (mean - prior_mean) ** 2 * (-prior_logvar).exp())
        kl = kl.flatten(1).sum(1)

    Args:
        mean: (B, ...) float64, float32, bfloat16 or float16, any strides.
        logvar: log of the variance, in the shape of ``mean``.
        prior_mean: mean of the prior: None for 0, a float, or a tensor that broadcasts to
            ``mean``.
        prior_logvar: log variance of the prior: None for 0, a float, or a tensor that broadcasts to
            ``mean``.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        (B,) in nats, float32 (float64 if an input is). Gradients flow to all four inputs.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes or devices do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), summed pairwise and in float64,
    rounded once.

    Paper: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendix B).
    """
    check_rows("gaussian_kl", "mean", mean)
    check_like("gaussian_kl", "logvar", logvar, "mean", mean)
    prior_mean = broadcast(
        "gaussian_kl", "prior_mean", 0.0 if prior_mean is None else prior_mean, "mean", mean
    )
    prior_logvar = broadcast(
        "gaussian_kl", "prior_logvar", 0.0 if prior_logvar is None else prior_logvar, "mean", mean
    )
    run = registry.implementation("gaussian_kl", mean, backend)
    return run(mean, logvar, prior_mean, prior_logvar)
