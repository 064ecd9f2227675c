"""``vk.conv3x3`` on Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from vaekernels.triton import implements
from vaekernels.triton.conv.call import ConvCall
from vaekernels.triton.conv.configurations import conv_configs
from vaekernels.triton.conv.forms import SAME
from vaekernels.triton.group_norm import scale_shift, statistics
from vaekernels.triton.group_norm_silu import group_norm_silu_backward

OP = "conv3x3"
AOT_CONFIGS = conv_configs(OP, SAME)


class Norm(NamedTuple):
    """The prologue's normalisation, as group_norm_silu has it."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float
    mean: Tensor
    rstd: Tensor

    @property
    def affine(self) -> tuple[Tensor, Tensor]:
        """Its factor and summand per sample and channel."""
        return scale_shift(self.mean, self.rstd, self.weight, self.bias)


def _norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> Norm | None:
    if weight is None or x.numel() == 0:
        return None
    if bias is None:
        raise ValueError(f"{OP}: expected norm_bias beside norm_weight")
    return Norm(weight, bias, groups, eps, *statistics(x, groups, eps))


@implements(OP)
def conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_groups: int,
    norm_eps: float,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    norm = _norm(x, norm_weight, norm_bias, norm_groups, norm_eps)
    call = ConvCall(
        *(OP, SAME, x, weight, bias, activation, negative_slope, precision),
        residual=residual,
        affine=norm and norm.affine,
    )
    return call.forward(x.shape[2], x.shape[3])


@implements(f"{OP}_backward")
def conv3x3_backward(
    grad: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_groups: int,
    norm_eps: float,
    activation: str | None,
    negative_slope: float,
    precision: str,
    y: Tensor,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    """The normalised activations are made again for the filters' gradient; only x is kept."""
    wants_norm = mask[0] or mask[4] or mask[5]
    norm = _norm(x, norm_weight, norm_bias, norm_groups, norm_eps)
    call = ConvCall(
        *(OP, SAME, x, weight, bias, activation, negative_slope, precision),
        residual=residual,
        affine=norm and norm.affine,
    )
    grad_x, *others = call.backward(grad, y, wants_norm, mask[1], mask[2], mask[3])
    norm_grads = (x.new_empty(0), x.new_empty(0))
    if norm is not None and wants_norm:
        grad_x, *norm_grads = group_norm_silu_backward(
            *(grad_x, x, norm.weight, norm.bias, norm.groups, norm.eps, "silu"),
            *(norm.mean, norm.rstd, (mask[0], mask[4], mask[5])),
        )
    return grad_x, *others, *norm_grads
