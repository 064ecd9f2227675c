"""``vk.downsample_conv4x4`` on Triton."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaekernels.triton import implements
from vaekernels.triton.conv.call import ConvCall
from vaekernels.triton.conv.configurations import conv_configs
from vaekernels.triton.conv.forms import DOWN4X4

OP = "downsample_conv4x4"
AOT_CONFIGS = conv_configs(OP, DOWN4X4)


@implements(OP)
def downsample_conv4x4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    call = ConvCall(OP, DOWN4X4, x, weight, bias, activation, negative_slope, precision)
    return call.forward(x.shape[2] // 2, x.shape[3] // 2)


@implements(f"{OP}_backward")
def downsample_conv4x4_backward(
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
    call = ConvCall(OP, DOWN4X4, x, weight, bias, activation, negative_slope, precision)
    return call.backward(grad, y, *mask)[:3]
