"""The ops that are a convolution, a bias and an activation, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.conv.op_calls import form_of, output_size


def implement(op: str, output_dim: int = 0) -> None:
    """Register ``op`` and its backward; ``output_dim`` is the weight's dimension of outputs."""
    form = form_of(op, None)

    @implements(op)
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        activation: str | None,
        negative_slope: float,
        precision: str,
    ) -> Tensor:
        settings = (activation, negative_slope, precision)
        call = ConvCall(op, form, x, weight, bias, *settings, output_dim=output_dim)
        return call.forward(*output_size(op, None, x.shape[2], x.shape[3]))

    @implements(f"{op}_backward")
    def backward(
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
        settings = (activation, negative_slope, precision)
        call = ConvCall(op, form, x, weight, bias, *settings, output_dim=output_dim)
        return call.backward(grad, y, *mask)[:3]
