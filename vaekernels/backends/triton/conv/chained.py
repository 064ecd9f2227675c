"""A convolution in a chain: it takes the statistics of x and hands on those of its result."""

from __future__ import annotations

import torch
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.conv import epilogue
from vaekernels.backends.triton.conv import statistics as handed_on
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.conv.op_calls import form_of, output_size
from vaekernels.backends.triton.group_norm import normalisation

AOT_CONFIGS = [*handed_on.AOT_CONFIGS, *epilogue.AOT_CONFIGS]


# In inference mode its results would not count their changes, which vk.accelerate wants to see.
@implements("chained_conv")
@torch.inference_mode(False)
@torch.no_grad()
def chained_conv(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    projection: Tensor | None,
    projection_bias: Tensor | None,
    statistics: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    norm_groups: int,
    norm_eps: float,
    padding: str | None,
    precision: str,
    emit_statistics: bool,
) -> tuple[Tensor, Tensor]:
    affine = None
    if norm_weight is not None and norm_bias is not None and x.numel() > 0:
        norm = (norm_weight, norm_bias, norm_groups, norm_eps)
        if statistics is None:
            found = normalisation(x, *norm)
            affine = found.scale, found.shift
        else:
            affine = handed_on.affine_of(statistics, *norm)
    call = ConvCall(
        *(op, form_of(op, padding), x, weight, bias, None, 0.0, precision),
        residual=residual,
        projection=projection,
        projection_bias=projection_bias,
        affine=affine,
    )
    size = output_size(op, padding, x.shape[2], x.shape[3])
    if emit_statistics:
        return call.forward_with_statistics(*size)
    return call.forward(*size), x.new_empty(0)
