"""``vk.group_norm_silu``: group normalisation and the activation after it, in one op."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import DTYPES, OpDefinition, define
from vaekernels.backends.reference import group_norm_silu as reference
from vaekernels.ops._checks import check_rows
from vaekernels.ops._norm import check_group_norm

_INPUTS = "Tensor x, Tensor weight, Tensor bias, SymInt groups, float eps, str? activation"


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, activation: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, rstd = (x.new_empty((x.shape[0], groups), dtype=dtype) for _ in range(2))
    return torch.empty_like(x), mean, rstd


define(
    OpDefinition(
        name="group_norm_silu",
        schema=f"({_INPUTS}) -> (Tensor y, Tensor mean, Tensor rstd)",
        fake=_fake,
        reference=reference.group_norm_silu,
        backward_schema=f"(Tensor? grad, {_INPUTS}, Tensor mean, Tensor rstd, bool[3] mask) "
        "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
        differentiable=("x", "weight", "bias"),
        saved_outputs=("mean", "rstd"),
        constant_outputs=("mean", "rstd"),
        backends={"cpu": (torch.float32,), "triton": DTYPES},
    )
)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    *,
    eps: float = 1e-6,
    activation: str | None = "silu",
    backend: str | None = None,
) -> Tensor:
    r"""Group normalisation followed by SiLU, without a tensor between them.

    .. math::
        y = \mathrm{silu}\left( \gamma_c \frac{x - \mu_{n,g}}{\sqrt{\sigma^2_{n,g} + \epsilon}}
        + \beta_c \right), \qquad \mathrm{silu}(u) = \frac{u}{1 + e^{-u}}

    with mean and (biased) variance of the channels of group g of sample n.

    Equivalent PyTorch::

        y = F.silu(F.group_norm(x, groups, weight, bias, eps))

    Args:
        x: (N, C, ...) float64, float32, bfloat16 or float16; contiguous and channels_last
            tensors are read in place, others are copied first.
        weight: (C,), gamma, in the dtype of ``x``, or float32 for one of 16 bits.
        bias: (C,), beta, in the dtype of ``x``, or float32 for one of 16 bits.
        groups: number of groups; divides C.
        eps: added to the variance.
        activation: ``"silu"``, or None for the normalisation alone.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        In the shape and dtype of ``x``, and in its memory format. Gradients flow to x, weight
        and bias; backward reads x again and keeps, besides it, two numbers per group.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: shapes, devices or groups do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: computed in float32 (float64 for float64 input), rounded once. Means and variances
    are taken about the mean of short runs and merged in float64, so that a large mean costs no
    more than its rounding.

    Paper: Y. Wu, K. He, "Group Normalization", ECCV 2018; T. F. Chan, G. H. Golub, R. J. LeVeque,
    "Algorithms for computing the sample variance", The American Statistician 1983.
    """
    check_rows("group_norm_silu", "x", x)
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(
            "group_norm_silu: x must have channels, shape (N, C, ...) with C > 0; "
            f"got {tuple(x.shape)}"
        )
    check_group_norm("group_norm_silu", x, weight, bias, groups, eps)
    if activation not in (None, "silu"):
        raise ValueError(f"group_norm_silu: activation must be 'silu' or None; got {activation!r}")
    implementation = registry.implementation("group_norm_silu", x, backend)
    y: Tensor = implementation(x, weight, bias, groups, float(eps), activation)[0]
    return y
