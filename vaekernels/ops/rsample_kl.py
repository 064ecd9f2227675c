"""``vk.rsample_kl``: a reparameterised sample and its KL in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import OpDefinition, define
from vaekernels.backends.reference import rsample_kl as reference
from vaekernels.ops._checks import (
    check_like,
    check_rows,
    check_sample_ids,
    check_step,
    checked_clamp,
)
from vaekernels.ops._seed import seed_tensor

_INPUTS = (
    "Tensor mean, Tensor logvar, Tensor seed, SymInt step, Tensor? sample_ids, "
    "float logvar_min, float logvar_max"
)


def _fake(
    mean: Tensor,
    logvar: Tensor,
    seed: Tensor,
    step: int,
    sample_ids: Tensor | None,
    logvar_min: float,
    logvar_max: float,
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(mean.dtype, logvar.dtype), torch.float32)
    return torch.empty_like(mean), mean.new_empty(mean.shape[:1], dtype=dtype)


define(
    OpDefinition(
        name="rsample_kl",
        schema=f"({_INPUTS}) -> (Tensor z, Tensor kl)",
        fake=_fake,
        reference=reference.rsample_kl,
        backward_schema=f"(Tensor? grad_z, Tensor? grad_kl, {_INPUTS}, bool[2] mask) "
        "-> (Tensor grad_mean, Tensor grad_logvar)",
        differentiable=("mean", "logvar"),
    )
)


def rsample_kl(
    mean: Tensor,
    logvar: Tensor,
    *,
    seed: int | Tensor | None = None,
    step: int = 0,
    sample_ids: Tensor | None = None,
    generator: torch.Generator | None = None,
    logvar_clamp: tuple[float, float] | None = (-30.0, 20.0),
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Sample a diagonal Gaussian and take its KL to the standard normal, in one pass.

    .. math::
        z_i = \mu_i + e^{\ell_i / 2} \epsilon_i, \qquad
        \mathrm{KL}_b = \tfrac12 \sum_i (\mu_i^2 + e^{\ell_i} - 1 - \ell_i)

    with :math:`\ell` the clamped ``logvar`` and :math:`\epsilon` the counter-based noise of
    ``docs/noise.md``: it depends on the seed, the step, the sample's id and the element's index
    alone, never on batch order, device or dtype. Backward recomputes it; nothing is stored.

    Equivalent PyTorch::

        logvar = logvar.clamp(*logvar_clamp)
        eps = vk.randn(mean.shape, seed=seed, step=step, sample_ids=sample_ids)
        z = mean + torch.exp(0.5 * logvar) * eps
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1)

    Args:
        mean: (B, ...) float64, float32, bfloat16 or float16; any strides, so the halves of a
            ``moments`` tensor need no copy.
        logvar: log of the variance, in the shape of ``mean``.
        seed: 64 bits: an integer, or an int64 tensor with one element (on the device, for CUDA
            graphs). None draws one from ``generator`` or the device's default generator.
        step: a second key for the noise, in [0, 2**32): the training step, the sample number.
        sample_ids: (B,) int64, the row's identity in the noise; None is ``arange(B)``.
        generator: where the seed is drawn from when ``seed`` is None.
        logvar_clamp: bounds of ``logvar``; no gradient flows outside of them, nor at a NaN, as in
            ``torch.clamp``. None: unbounded.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        ``z`` like ``mean``, and ``kl`` of shape (B,) in nats, float32 (float64 for float64
        input). Gradients flow to ``mean`` and ``logvar`` from both; an output that is not used
        adds nothing to them, however large it is.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes, devices, ``step`` or ``logvar_clamp`` do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), summed in float64 or pairwise
    in float32, rounded once. In float32 ``z`` is the same bits on every backend but the
    reference. The noise itself is float32, also for float64 input.

    Paper: D. Kingma, M. Welling, "Auto-Encoding Variational Bayes", 2013 (appendix B).
    """
    check_rows("rsample_kl", "mean", mean)
    check_like("rsample_kl", "logvar", logvar, "mean", mean)
    check_step("rsample_kl", step)
    if sample_ids is not None:
        check_sample_ids("rsample_kl", sample_ids, mean.shape[0])
    low, high = checked_clamp("rsample_kl", logvar_clamp)
    seed = seed_tensor("rsample_kl", seed, generator, mean.device)
    run = registry.implementation("rsample_kl", mean, backend)
    return run(mean, logvar, seed, step, sample_ids, low, high)
