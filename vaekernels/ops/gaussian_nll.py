"""``vk.gaussian_nll``: the reconstruction loss of Gaussian pixels."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.reference import gaussian_nll as reference
from vaekernels.ops._checks import broadcast, check_like, check_rows
from vaekernels.ops._row_sum import define_row_sum

define_row_sum(reference.gaussian_nll)


def gaussian_nll(
    mean: Tensor,
    target: Tensor,
    logvar: float | Tensor = 0.0,
    *,
    backend: str | None = None,
) -> Tensor:
    r"""Negative log-likelihood of ``target`` under a diagonal Gaussian, summed per sample.

    .. math::
        \mathrm{nll}_b = \tfrac12 \sum_i \left( \log 2\pi + \ell_i
        + (t_i - \mu_i)^2 e^{-\ell_i} \right)

    Equivalent PyTorch::

        nll = 0.5 * (math.log(2 * math.pi) + logvar + (target - mean) ** 2 * (-logvar).exp())
        nll = nll.flatten(1).sum(1)

    Args:
        mean: (B, ...) float64, float32, bfloat16 or float16, any strides.
        target: in the shape of ``mean``; its dtype may differ, as under autocast.
        logvar: log of the variance: a float, one learned number (a scalar parameter), or a
            tensor that broadcasts to ``mean``.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        (B,) in nats, float32 (float64 if an input is). Gradients flow to all three inputs.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes or devices do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), summed pairwise and in float64,
    rounded once.

    Paper: O. Rybkin, K. Daniilidis, S. Levine, "Simple and effective VAE training with
    calibrated decoders", ICML 2021 (the learned scalar variance).
    """
    check_rows("gaussian_nll", "mean", mean)
    check_like("gaussian_nll", "target", target, "mean", mean)
    logvar = broadcast("gaussian_nll", "logvar", logvar, "mean", mean)
    return registry.implementation("gaussian_nll", mean, backend)(mean, target, logvar)
