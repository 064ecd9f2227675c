"""``vk.conv3x3``: a 3x3 convolution with what stands before and after it in a VAE."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaekernels.backends.reference import conv3x3 as reference
from vaekernels.ops._conv import (
    check_conv,
    check_dtype,
    check_residual,
    conv_docstring,
    define_conv,
    empty_result,
    run_conv,
)
from vaekernels.ops._norm import check_group_norm

OP = "conv3x3"


class NormPrologue(NamedTuple):
    """GroupNorm and SiLU before a convolution: ``x`` becomes ``silu(group_norm(x))``.

    Attributes:
        weight: (C,), the scale of each channel.
        bias: (C,), its shift.
        groups: number of groups; divides C.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float = 1e-6


def _fake(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return empty_result(x, weight.shape[0], x.shape[2], x.shape[3])


define_conv(
    reference.conv3x3,
    "Tensor x, Tensor weight, Tensor? bias, Tensor? residual, Tensor? norm_weight, "
    "Tensor? norm_bias, int norm_groups, float norm_eps",
    _fake,
    ("x", "weight", "bias", "residual", "norm_weight", "norm_bias"),
)


@conv_docstring
def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: NormPrologue | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
    negative_slope: float = 0.01,
    recompute: str | None = "norm",
    precision: str | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Convolve with 3x3 taps and padding 1; normalise before, add and activate after, in one op.

    .. math::
        y = \phi(w * p(x) + b + r), \qquad
        p(x) = x \text{ or } \mathrm{SiLU}(\mathrm{GroupNorm}(x))

    Equivalent PyTorch::

        if norm is not None:
            x = F.silu(F.group_norm(x, norm.groups, norm.weight, norm.bias, norm.eps))
        y = F.conv2d(x, weight, bias, padding=1)
        if residual is not None:
            y = y + residual
        y = F.silu(y)  # or relu, leaky_relu, nothing

    Args:
        x: (N, Ci, H, W), any strides; channels_last is read fastest.
        weight: (Co, Ci, 3, 3).
        bias: (Co,) or None.
        norm: a ``vk.NormPrologue`` of Ci channels, or None.
        residual: (N, Co, H, W), added to the convolution; or None.
        recompute: ``"norm"``: backward recomputes the normalised activations and only ``x`` is
            saved. None: they are saved, a tensor like ``x``, and not recomputed. The results are
            the same.
        %(options)s

    Returns:
        (N, Co, H, W) in the dtype of ``x``; channels_last on the cpu and triton backends.
        Gradients flow to ``x``, ``weight``, ``bias``, ``residual`` and both tensors of ``norm``.

    Raises:
        %(raises)s

    %(precision)s

    Paper: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016;
    for the block, R. Rombach et al., "High-resolution image synthesis with latent diffusion
    models", CVPR 2022.
    """
    check_conv(OP, x, weight, bias, kernel=3)
    if residual is not None:
        check_residual(OP, residual, (x.shape[0], weight.shape[0], x.shape[2], x.shape[3]), x)
    if recompute not in (None, "norm"):
        raise ValueError(f"{OP}: recompute must be None or 'norm'; got {recompute!r}")
    if norm is not None:
        check_norm(norm, x)
        if recompute is None:
            from vaekernels.ops.group_norm_silu import group_norm_silu

            x = group_norm_silu(
                x, norm.weight, norm.bias, norm.groups, eps=norm.eps, backend=backend
            )
            norm = None
    norm_weight, norm_bias, groups, eps = (None, None, 1, 1e-6) if norm is None else norm
    return run_conv(
        OP,
        (x, weight, bias, residual, norm_weight, norm_bias),
        (groups, eps),
        activation,
        negative_slope,
        precision,
        backend,
    )


def check_norm(norm: object, x: Tensor) -> None:
    """Check that ``norm`` is a prologue for ``x``."""
    if not isinstance(norm, NormPrologue):
        raise TypeError(f"{OP}: norm must be a vk.NormPrologue or None; got {type(norm).__name__}")
    check_group_norm(OP, x, *norm, prefix="norm.", check_dtype=check_dtype)
