"""``vk.upsample_conv3x3`` on Triton."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaekernels.triton import implements
from vaekernels.triton.conv.call import ConvCall
from vaekernels.triton.conv.configurations import conv_configs
from vaekernels.triton.conv.forms import UPSAMPLE

OP = "upsample_conv3x3"
AOT_CONFIGS = conv_configs(OP, UPSAMPLE)


@implements(OP)
def upsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    call = ConvCall(OP, UPSAMPLE, x, weight, bias, activation, negative_slope, precision)
    return call.forward(2 * x.shape[2], 2 * x.shape[3])


@implements(f"{OP}_backward")
def upsample_conv3x3_backward(
    grad: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    negative_slope: float,
    precision: str,
    y: Tensor,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    call = ConvCall(OP, UPSAMPLE, x, weight, bias, activation, negative_slope, precision)
    return call.backward(grad, y, *mask)[:3]
