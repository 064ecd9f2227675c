"""Registration of the ops that are a convolution, a bias and an activation, without a prologue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.conv.op_calls import form_of, output_size


def implement(op: str, output_dim: int = 0) -> tuple[Callable[..., Any], ...]:
    """Register ``op`` and its backward.

    Args:
        op: a convolution; downsample_conv3x3 takes its padding after the bias.
        output_dim: dimension of the weight that holds the output channels.

    Returns:
        The two functions that were registered.
    """

    def conv_call(inputs: Sequence[Any]) -> tuple[ConvCall, str | None]:
        x, weight, bias, *padding, activation, negative_slope, precision = inputs
        sides = padding[0] if padding else None
        call = ConvCall(
            *(op, form_of(op, sides), x, weight, bias, activation, negative_slope, precision),
            output_dim=output_dim,
        )
        return call, sides

    @implements(op)
    def forward(*inputs: Any) -> Tensor:
        call, padding = conv_call(inputs)
        return call.forward(*output_size(op, padding, call.x.shape[2], call.x.shape[3]))

    @implements(f"{op}_backward")
    def backward(grad: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
        *inputs, y, mask = arguments
        call, _ = conv_call(inputs)
        return call.backward(grad, y, *mask)[:3]

    return forward, backward
