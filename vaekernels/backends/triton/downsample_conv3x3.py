"""``vk.downsample_conv3x3`` on Triton."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.conv.aot_variants import conv_configs
from vaekernels.backends.triton.conv.forms import DOWN3X3
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.conv.op_calls import output_size

OP = "downsample_conv3x3"
AOT_CONFIGS = conv_configs(OP, DOWN3X3["asymmetric"])


@implements(OP)
def downsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: str,
    activation: str | None,
    negative_slope: float,
    precision: str,
) -> Tensor:
    call = ConvCall(OP, DOWN3X3[padding], x, weight, bias, activation, negative_slope, precision)
    return call.forward(*output_size(OP, padding, x.shape[2], x.shape[3]))


@implements(f"{OP}_backward")
def downsample_conv3x3_backward(
    grad: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: str,
    activation: str | None,
    negative_slope: float,
    precision: str,
    y: Tensor,
    mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    call = ConvCall(OP, DOWN3X3[padding], x, weight, bias, activation, negative_slope, precision)
    return call.backward(grad, y, *mask)[:3]
