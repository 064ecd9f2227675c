"""``vk.bernoulli_nll``: the reconstruction loss of Bernoulli pixels, from logits."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.reference import bernoulli_nll as reference
from vaekernels.ops._checks import check_like, check_rows
from vaekernels.ops._row_sum import define_row_sum

define_row_sum(reference.bernoulli_nll)


def bernoulli_nll(logits: Tensor, target: Tensor, *, backend: str | None = None) -> Tensor:
    r"""Negative log-likelihood of Bernoulli variables given by logits, summed per sample.

    .. math::
        \mathrm{nll}_b = \sum_i t_i \log(1 + e^{-x_i}) + (1 - t_i) \log(1 + e^{x_i})

    Equivalent PyTorch::

        nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        nll = nll.flatten(1).sum(1)

    Args:
        logits: (B, ...) float64, float32, bfloat16 or float16, any strides.
        target: in the shape of ``logits``, usually in [0, 1] (not checked); its dtype may
            differ, as under autocast.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        (B,) in nats, float32 (float64 if an input is). Gradients flow to both inputs.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes or devices do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), summed pairwise and in float64,
    rounded once. Accurate relative to each term also where the logits are large and the loss is
    tiny, where PyTorch's own loses it.

    Paper: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendix C.1).
    """
    check_rows("bernoulli_nll", "logits", logits)
    check_like("bernoulli_nll", "target", target, "logits", logits)
    return registry.implementation("bernoulli_nll", logits, backend)(logits, target)
