"""Forward and backward of a call, as each of the ops has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekernels.triton.conv.forms import Form, adjoint
from vaekernels.triton.conv.launch import Epilogue, convolve, filter_gradient
from vaekernels.triton.conv.padded import Padded, pad, pad_like


@dataclass(frozen=True)
class ConvCall:
    """y = activation(convolution(prologue(x), weight) + bias + residual).

    Attributes:
        op: named in errors.
        form: of the convolution.
        x: the images.
        weight: the filters.
        bias: per channel of y, or None.
        activation: by name, or None.
        slope: of leaky_relu.
        precision: a tier.
        residual: like y, or None.
        affine: scale and shift of the prologue, ``silu(x * scale + shift)``, (N, C); None: x.
        output_dim: the dimension of weight with y's channels; 1 where its inputs are first.
    """

    op: str
    form: Form
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    activation: str | None
    slope: float
    precision: str
    residual: Tensor | None = None
    affine: tuple[Tensor, Tensor] | None = None
    output_dim: int = 0

    def forward(self, height: int, width: int) -> Tensor:
        """y, of this height and width, channels_last."""
        if self.x.numel() == 0:
            return _empty((0, self.weight.shape[self.output_dim], height, width), self.x)
        epilogue = Epilogue(self.bias, self.residual, self.activation, self.slope)
        x = pad(self.x, self.form, (height, width), self.affine)
        return self._convolve(self.form, x, self.output_dim, (height, width), epilogue)

    def backward(
        self,
        grad: Tensor | None,
        y: Tensor,
        wants_x: bool,
        wants_weight: bool,
        wants_bias: bool,
        wants_residual: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradients of x (after the prologue), weight, bias, residual; empty if not wanted."""
        if grad is None:
            raise ValueError(f"{self.op}: expected a gradient")
        x, weight, bias, residual = (self.x.new_empty(0) for _ in range(4))
        g = self._before_activation(grad, y)
        if wants_bias:
            assert self.bias is not None
            bias = torch.empty_like(self.bias).copy_(g.sum((0, 2, 3), dtype=torch.float32))
        if wants_residual:
            # A result of an op must not be its argument.
            residual = _empty(g.shape, g).copy_(g)
        if self.x.numel() == 0:
            x = _empty(self.x.shape, self.x) if wants_x else x
            weight = torch.zeros_like(self.weight) if wants_weight else weight
        elif wants_x or wants_weight:
            form, size = adjoint(self.form), (self.x.shape[2], self.x.shape[3])
            padded = pad(g, form, size)
            if wants_x:
                x = self._convolve(form, padded, 1 - self.output_dim, size, Epilogue())
            if wants_weight:
                weight = self._filter_gradient(g, padded)
        return x, weight, bias, residual

    def _convolve(
        self, form: Form, x: Padded, output_dim: int, size: tuple[int, int], epilogue: Epilogue
    ) -> Tensor:
        return convolve(form, x, self.weight, output_dim, size, self.precision, epilogue)[0]

    def _before_activation(self, grad: Tensor, y: Tensor) -> Tensor:
        if self.activation is None:
            return grad
        if self.activation == "relu":
            return torch.ops.aten.threshold_backward(grad, y, 0)
        if self.activation == "leaky_relu":
            return torch.ops.aten.leaky_relu_backward(grad, y, self.slope, True)
        raise NotImplementedError(f"{self.op}: backward of the fused silu is composed in Python")

    def _filter_gradient(self, g: Tensor, padded: Padded) -> Tensor:
        """From g, and ``padded``, which is g as the adjoint form reads it."""
        if self.form.phases == 1:
            x = pad(self.x, self.form, (g.shape[2], g.shape[3]), self.affine)
            # With stride 1 the cells of a form and of its adjoint are the same.
            v = padded if padded.cells == x.cells else pad_like(g, x.cells)
            return filter_gradient(self.form, x, v, self.weight, self.output_dim, self.precision)
        # With several phases the adjoint is the form with one: from g to x, by the same filters.
        v = pad_like(self.x, padded.cells, self.affine)
        back, input_dim = adjoint(self.form), 1 - self.output_dim
        return filter_gradient(back, padded, v, self.weight, input_dim, self.precision)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
