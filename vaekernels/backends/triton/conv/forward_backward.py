"""Forward and backward of a call, as each of the ops has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaekernels.backends.definitions import STATISTICS_PARTS
from vaekernels.backends.triton.conv import cudnn
from vaekernels.backends.triton.conv.autotune_table import CUDNN, Key, epilogue_of
from vaekernels.backends.triton.conv.dispatch import Choice, choose
from vaekernels.backends.triton.conv.epilogue import finish
from vaekernels.backends.triton.conv.forms import POINT, Form, adjoint
from vaekernels.backends.triton.conv.launch import (
    Epilogue,
    architecture_of,
    convolve,
    filter_gradient,
)
from vaekernels.backends.triton.conv.padded_images import Padded, pad, pad_like
from vaekernels.backends.triton.conv.statistics import merge
from vaekernels.backends.triton.conv.tile_heuristics import GradientTile, bucket, factors_of
from vaekernels.backends.triton.group_norm_silu import affine_silu


@dataclass(frozen=True)
class ConvCall:
    """y = activation(convolution(prologue(x), weight) + bias + r).

    r is the residual, or ``convolution(residual, projection) + projection_bias``.

    Attributes:
        op: named in errors.
        form: of the convolution.
        x: the images.
        weight: the filters.
        bias: per channel of y, or None.
        activation: by name, or None.
        slope: of leaky_relu.
        precision: a tier.
        residual: like y but for the channels of a projection, or None.
        projection: (channels of y, those of residual, 1, 1), or None; forward only.
        projection_bias: per channel of y, or None.
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
    projection: Tensor | None = None
    projection_bias: Tensor | None = None
    affine: tuple[Tensor, Tensor] | None = None
    output_dim: int = 0

    def forward(self, height: int, width: int) -> Tensor:
        """y, of this height and width, channels_last."""
        if self.x.numel() == 0:
            return _empty((0, self.weight.shape[self.output_dim], height, width), self.x)
        return self._forward(height, width, statistics=False)[0]

    def forward_with_statistics(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """y, and the statistics of its parts (statistics.py)."""
        if self.x.numel() == 0:
            shape = (0, STATISTICS_PARTS, 3, self.weight.shape[self.output_dim])
            y = self.forward(height, width)
            return y, y.new_empty(shape, dtype=torch.float32)
        y, statistics = self._forward(height, width, statistics=True)
        assert statistics is not None
        return y, merge(statistics)

    def _forward(self, height: int, width: int, statistics: bool) -> tuple[Tensor, Tensor | None]:
        """y, and the statistics of its tiles."""
        size = (height, width)
        choice = self.choice("forward", size, statistics)
        epilogue = Epilogue(
            *(self._summed_bias(), self.residual, self.projection),
            *(self.activation, self.slope, statistics),
        )
        if choice.algorithm == CUDNN:
            if self.residual is not None and self.projection is not None:
                residual = cudnn.forward(POINT, self.residual, self.projection, size)
                epilogue = replace(epilogue, residual=residual, projection=None)
            y = cudnn.forward(self.form, self._seen(), self.weight, size)
            return finish(y, epilogue)
        x = pad(self.x, self.form, size, self.precision, self.affine)
        options = (self.output_dim, size, self.precision, epilogue, choice.tile)
        return convolve(self.form, x, self.weight, *options)

    def _summed_bias(self) -> Tensor | None:
        """What is added to each channel."""
        if self.bias is None or self.projection_bias is None:
            return self.projection_bias if self.bias is None else self.bias
        return self.bias.float() + self.projection_bias.float()

    def choice(self, direction: str, size: tuple[int, int], statistics: bool = False) -> Choice:
        """How one of ``autotune_table.DIRECTIONS`` is computed; arguments as in :meth:`key`."""
        return choose(self.key(direction, size, statistics))

    def key(self, direction: str, size: tuple[int, int], statistics: bool = False) -> Key:
        """What a measurement of one direction is known by; reads no number.

        Args:
            direction: which.
            size: height and width of y.
            statistics: also those of y are wanted.
        """
        present = {
            "norm": self.affine is not None and direction != "input",
            "residual": self.residual is not None and direction == "forward",
            "projection": self.projection is not None and direction == "forward",
            "statistics": statistics,
        }
        return Key(
            architecture=architecture_of(self.weight),
            op=self.op,
            direction=direction,
            dtype=factors_of(self.weight.dtype, self.precision),
            inputs=self.weight.shape[1 - self.output_dim],
            outputs=self.weight.shape[self.output_dim],
            rows=bucket(self.x.shape[0] * size[0] * size[1]),
            epilogue=epilogue_of(extra for extra, there in present.items() if there),
        )

    def _seen(self) -> Tensor:
        """What the convolution sees: x behind the prologue."""
        return self.x if self.affine is None else affine_silu(self.x, *self.affine)

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
            grad_x, grad_weight = self._gradients(g, wants_x, wants_weight)
            x = x if grad_x is None else grad_x
            weight = weight if grad_weight is None else grad_weight
        return x, weight, bias, residual

    def _gradients(
        self, g: Tensor, wants_x: bool, wants_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x and weight, each by its chosen algorithm; None if not wanted."""
        outputs, size = (g.shape[2], g.shape[3]), (self.x.shape[2], self.x.shape[3])
        wanted = {"input": wants_x, "weight": wants_weight}
        choices = {name: self.choice(name, outputs) for name, wants in wanted.items() if wants}
        theirs = {name for name, choice in choices.items() if choice.algorithm == CUDNN}
        ours = choices.keys() - theirs
        grad_x, grad_weight = None, None
        if theirs:
            # Of x, the gradient of x needs the shape alone.
            x = self._seen() if "weight" in theirs else self.x
            wants = ("input" in theirs, "weight" in theirs)
            grad_x, grad_weight = cudnn.gradients(self.form, g, x, self.weight, wants)
        form = adjoint(self.form)
        if ours:
            padded = pad(g, form, size, self.precision)
        if "input" in ours:
            options = (1 - self.output_dim, size, self.precision, Epilogue())
            grad_x, _ = convolve(form, padded, self.weight, *options, choices["input"].tile)
        if "weight" in ours:
            grad_weight = self._filter_gradient(g, padded, choices["weight"].tile)
        return grad_x, grad_weight

    def _before_activation(self, grad: Tensor, y: Tensor) -> Tensor:
        if self.activation is None:
            return grad
        if self.activation == "relu":
            return torch.ops.aten.threshold_backward(grad, y, 0)
        if self.activation == "leaky_relu":
            return torch.ops.aten.leaky_relu_backward(grad, y, self.slope, True)
        raise NotImplementedError(f"{self.op}: backward of the fused silu is composed in Python")

    def _filter_gradient(self, g: Tensor, padded: Padded, tile: GradientTile | None) -> Tensor:
        """From g, and ``padded``, which is g as the adjoint form reads it."""
        settings = (self.precision, tile)
        if self.form.phases == 1:
            x = pad(self.x, self.form, (g.shape[2], g.shape[3]), self.precision, self.affine)
            # With stride 1 the cells of a form and of its adjoint are the same.
            v = padded if padded.cells == x.cells else pad_like(g, x.cells, self.precision)
            return filter_gradient(self.form, x, v, self.weight, self.output_dim, *settings)
        # With several phases the adjoint is the form with one: from g to x, by the same filters.
        v = pad_like(self.x, padded.cells, self.precision, self.affine)
        back, input_dim = adjoint(self.form), 1 - self.output_dim
        return filter_gradient(back, padded, v, self.weight, input_dim, *settings)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )
