"""``vk.conv3x3`` on Triton."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.conv import chained
from vaekernels.backends.triton.conv.aot_variants import conv_configs, epilogue_configs, every_tile
from vaekernels.backends.triton.conv.forms import SAME
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.group_norm import Normalisation, normalisation
from vaekernels.backends.triton.group_norm_silu import group_norm_silu_backward

OP = "conv3x3"
AOT_CONFIGS = [
    *conv_configs(OP, SAME),
    *epilogue_configs(OP, SAME),
    *every_tile(OP, SAME, "silu", "epilogue", "projection"),
    *chained.AOT_CONFIGS,
]


def _norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
) -> Normalisation | None:
    if weight is None:
        return None
    if bias is None:
        raise ValueError(f"{OP}: expected norm_bias beside norm_weight")
    if x.numel() == 0:
        return Normalisation(*(x.new_empty(0) for _ in range(4)))
    return normalisation(x, weight, bias, groups, eps)


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
        affine=norm and (norm.scale, norm.shift),
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
        affine=norm and (norm.scale, norm.shift),
    )
    grad_x, *others = call.backward(grad, y, wants_norm, mask[1], mask[2], mask[3])
    norm_grads = [x.new_empty(0), x.new_empty(0)]
    if norm is not None and wants_norm:
        assert norm_weight is not None
        assert norm_bias is not None
        grad_x, *norm_grads = group_norm_silu_backward(
            *(grad_x, x, norm_weight, norm_bias, norm_groups, norm_eps, "silu"),
            *(norm.mean, norm.rstd, (mask[0], mask[4], mask[5])),
        )
        grad_x = grad_x.contiguous(memory_format=torch.channels_last) if mask[0] else grad_x
    return grad_x, *others, *norm_grads
