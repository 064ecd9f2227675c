"""``vk.laplace_nll``: the reconstruction loss of Laplace pixels (an L1 loss)."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.reference import laplace_nll as reference
from vaekernels.ops._checks import broadcast, check_like, check_rows
from vaekernels.ops._row_sum import define_row_sum

define_row_sum(reference.laplace_nll)


def laplace_nll(
    mean: Tensor,
    target: Tensor,
    scale: float | Tensor = 1.0,
    *,
    backend: str | None = None,
) -> Tensor:
    r"""Negative log-likelihood of ``target`` under Laplace distributions, summed per sample.

    .. math::
        \mathrm{nll}_b = \sum_i \log(2 s_i) + |t_i - \mu_i| / s_i

    Equivalent PyTorch::

        nll = (torch.log(2 * scale) + (target - mean).abs() / scale).flatten(1).sum(1)

    Args:
        mean: (B, ...) float64, float32, bfloat16 or float16, any strides.
        target: in the shape of ``mean``; its dtype may differ, as under autocast.
        scale: positive: a float, one learned number, or a tensor that broadcasts to ``mean``.
            A tensor's values are not checked (that would synchronise): a negative one gives
            NaN, as in PyTorch.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        (B,) in nats, float32 (float64 if an input is). Gradients flow to all three inputs; the
        gradient of the absolute value at 0 is 0.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes or devices do not fit, or a float ``scale`` is not positive.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), summed pairwise and in float64,
    rounded once.

    Paper: P. Isola et al., "Image-to-image translation with conditional adversarial networks",
    CVPR 2017 (why L1 blurs less than L2).
    """
    check_rows("laplace_nll", "mean", mean)
    check_like("laplace_nll", "target", target, "mean", mean)
    if isinstance(scale, (int, float)) and not scale > 0:
        raise ValueError(f"laplace_nll: scale must be positive; got {scale}")
    scale = broadcast("laplace_nll", "scale", scale, "mean", mean)
    return registry.implementation("laplace_nll", mean, backend)(mean, target, scale)
