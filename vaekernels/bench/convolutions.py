"""The convolution ops beside what PyTorch has for them: results, gradients, inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels import ops
from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench.op_inputs import CONV, ConvShape
from vaekernels.bench.workloads import Call, Inputs


@dataclass(frozen=True)
class Convolution:
    """One op and its twin in PyTorch.

    Attributes:
        op: the op's name.
        twin: what a PyTorch user calls.
        stride: of the twin.
        transposed: the filter is (in, out, height, width).
        padding: of the op, where it takes one.
    """

    op: str
    twin: Callable[..., Tensor]
    stride: int = 1
    transposed: bool = False
    padding: str | None = None

    @property
    def label(self) -> str:
        """Of the op in a row's case."""
        return f"{self.padding} " if self.padding else ""

    def options(self, precision: str) -> dict[str, Any]:
        """Of the public function."""
        padding = {} if self.padding is None else {"padding": self.padding}
        return {**padding, "precision": precision}

    def inputs(
        self, shape: ConvShape, generator: torch.Generator, *, grad: bool = False
    ) -> dict[str, Tensor]:
        """``x``, ``weight``, ``bias``, and the result's gradient where it is wanted."""
        made = CONV[self.op].inputs(shape, torch.float32, generator)
        tensors = dict(zip(("x", "weight", "bias"), made, strict=True))
        if grad:
            meta = {name: tensor.to("meta") for name, tensor in tensors.items()}
            tensors["grad"] = torch.randn(self.twin(**meta).shape, generator=generator)
        return tensors

    def ours(self, precision: str) -> Callable[..., Tensor]:
        """The public function with its options."""
        return partial(getattr(ops, self.op), **self.options(precision))

    def twin_gradient(self, wanted: str, inputs: Inputs) -> Call:
        """ATen's gradient of ``x`` or ``weight`` alone."""
        x, weight, grad = inputs["x"], inputs["weight"], inputs["grad"]
        mask = [wanted == "x", wanted == "weight", False]
        bias_sizes = list(inputs["bias"].shape)
        settings: tuple[Any, ...] = ([self.stride] * 2, [1, 1], [1, 1], self.transposed, [0, 0], 1)

        def call() -> Tensor:
            gradients = torch.ops.aten.convolution_backward(
                grad, x, weight, bias_sizes, *settings, mask
            )
            return gradients[mask.index(True)]

        return call

    def our_gradient(self, wanted: str, precision: str, inputs: Inputs) -> Call:
        """Our gradient of ``x`` or ``weight`` alone, without the forward, of a trained weight."""
        if registry.select(self.op, inputs["x"].device.type, inputs["x"].dtype) == "reference":
            return self._recorded_gradient(wanted, precision, inputs)
        definition = DEFINITIONS[self.op]
        with torch.no_grad():
            y = self.ours(precision)(inputs["x"], inputs["weight"], inputs["bias"])
        # Its transformed filters would be kept from call to call otherwise, as no training can.
        inputs["weight"].requires_grad_()
        values: dict[str, Any] = {
            # What the public function hands on where it is not asked for more.
            "residual": None,
            "norm_weight": None,
            "norm_bias": None,
            "norm_groups": 1,
            "norm_eps": 1e-6,
            "activation": None,
            "negative_slope": 0.01,
            **self.options(precision),
            **inputs,
            "y": y,
            "mask": [name == wanted for name in definition.differentiable],
        }
        backward = getattr(torch.ops.vaekernels, f"{self.op}_backward").default
        arguments = [values[argument.name] for argument in backward._schema.arguments]
        position = list(definition.differentiable).index(wanted)

        def call() -> Tensor:
            with torch.no_grad():
                return backward(*arguments)[position]

        return call

    def _recorded_gradient(self, wanted: str, precision: str, inputs: Inputs) -> Call:
        """The reference has no op for its backward: autograd runs the one that it recorded."""
        leaves = {name: inputs[name] for name in ("x", "weight", "bias")}
        leaf = leaves[wanted].requires_grad_()
        y = self.ours(precision)(**leaves)

        def call() -> Tensor:
            return torch.autograd.grad(y, leaf, inputs["grad"], retain_graph=True)[0]

        return call


def _symmetric(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=2, padding=1)


def _convolution(op: str, **options: Any) -> Convolution:
    return Convolution(op, CONV[op].eager, **options)


CONV3X3 = _convolution("conv3x3")
UPSAMPLE = _convolution("upsample_conv3x3")
DOWNSAMPLE3X3 = (
    _convolution("downsample_conv3x3", stride=2, padding="asymmetric"),
    Convolution("downsample_conv3x3", _symmetric, stride=2, padding="symmetric"),
)
DOWNSAMPLE4X4 = _convolution("downsample_conv4x4", stride=2)
TRANSPOSE4X4 = _convolution("conv_transpose4x4", stride=2, transposed=True)
