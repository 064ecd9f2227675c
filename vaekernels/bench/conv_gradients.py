"""The convolution ops and their counterparts in PyTorch: results and single gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench.op_inputs import CONV, OpCases
from vaekernels.bench.timing import Call
from vaekernels.bench.workloads import Inputs


@dataclass(frozen=True)
class Convolution:
    """One op and its counterpart in PyTorch.

    Attributes:
        cases: the op, its inputs ``x``, ``weight`` and ``bias``, and its counterpart.
        stride: of the counterpart.
        transposed: the filter is (in, out, height, width).
        padding: of the op, where it has the parameter.
    """

    cases: OpCases
    stride: int = 1
    transposed: bool = False
    padding: str | None = None

    @property
    def op(self) -> str:
        """Name of the op."""
        return self.cases.op

    @property
    def label(self) -> str:
        """Prefix of a row's case."""
        return f"{self.padding} " if self.padding else ""

    def options(self, precision: str) -> dict[str, Any]:
        """Options of the public function."""
        padding = {} if self.padding is None else {"padding": self.padding}
        return {**padding, "precision": precision}

    def ours(self, precision: str) -> Callable[..., Tensor]:
        """The public function with its options."""
        return partial(self.cases.ours, **self.options(precision))

    def eager_gradient(self, wanted: str, inputs: Inputs) -> Call:
        """ATen's gradient of ``x`` or ``weight`` alone."""
        x, weight, grad = inputs["x"], inputs["weight"], inputs["grad0"]
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
        """Our gradient of ``x`` or ``weight`` alone, without the forward.

        The weight requires a gradient, so that its transformed filters are not cached between
        calls, as in training.
        """
        if registry.select(self.op, inputs["x"].device.type, inputs["x"].dtype) == "reference":
            return self._recorded_gradient(wanted, precision, inputs)
        definition = DEFINITIONS[self.op]
        with torch.no_grad():
            y = self.ours(precision)(inputs["x"], inputs["weight"], inputs["bias"])
        inputs["weight"].requires_grad_()
        values: dict[str, Any] = {
            # The defaults of the public function.
            "residual": None,
            "norm_weight": None,
            "norm_bias": None,
            "norm_groups": 1,
            "norm_eps": 1e-6,
            "activation": None,
            "negative_slope": 0.01,
            **self.options(precision),
            **inputs,
            "grad": inputs["grad0"],
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
        """The same by autograd: the reference backend has no op for its backward."""
        leaves = {name: inputs[name] for name in ("x", "weight", "bias")}
        leaf = leaves[wanted].requires_grad_()
        y = self.ours(precision)(**leaves)

        def call() -> Tensor:
            return torch.autograd.grad(y, leaf, inputs["grad0"], retain_graph=True)[0]

        return call


def _symmetric(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, stride=2, padding=1)


CONV3X3 = Convolution(CONV["conv3x3"])
UPSAMPLE = Convolution(CONV["upsample_conv3x3"])
DOWNSAMPLE3X3 = (
    Convolution(CONV["downsample_conv3x3"], stride=2, padding="asymmetric"),
    Convolution(
        replace(CONV["downsample_conv3x3"], eager=_symmetric), stride=2, padding="symmetric"
    ),
)
DOWNSAMPLE4X4 = Convolution(CONV["downsample_conv4x4"], stride=2)
TRANSPOSE4X4 = Convolution(CONV["conv_transpose4x4"], stride=2, transposed=True)
