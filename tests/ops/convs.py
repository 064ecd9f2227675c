"""What the tests of the convolutions share: a call, its inputs, its exact results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops.conformance import in_layout
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import CONV, error, tolerance

BACKENDS = ("reference", "cpu")
ACTIVATIONS = (None, "relu", "silu", "leaky_relu")
PRECISIONS = ("high", "highest")  # of a CPU, where "medium" is "high"
GPU_PRECISIONS = ("medium", *PRECISIONS)
SLOPE = 0.2
# What precision="high" promises: error over the largest magnitude, of a result or a gradient.
HIGH = 2e-5
# And "medium" on a GPU. A factor has an error of 2^-11, or 2^-10 where cuDNN may cut it off; a
# product that of both, 2^-9 at most. The largest of several results has terms that cancel no more
# than their errors do; a lone result may be small beside its terms.
MEDIUM = 2e-3


@dataclass(frozen=True)
class Conv:
    """One call of a convolution.

    Attributes:
        op: its name.
        shape: of the layer.
        activation: after the convolution.
        bias: there is one.
        residual: there is one; conv3x3.
        groups: of the normalisation before; None for no such; conv3x3.
        padding: of downsample_conv3x3.
        layout: of the images, the residual and the gradient (conformance.LAYOUTS).
    """

    op: str
    shape: tuple[int, ...]
    activation: str | None = None
    bias: bool = True
    residual: bool = False
    groups: int | None = None
    padding: str | None = None
    layout: str = "contiguous"

    @property
    def smallest(self) -> int:
        """Height and width that it needs; a norm's gradient is all rounding for a few numbers."""
        if self.groups is not None:
            return 3
        return 2 if "downsample" in self.op and self.padding != "symmetric" else 1

    def tensors(self) -> dict[str, Tensor]:
        """The inputs by name, float32."""
        generator = torch.Generator().manual_seed(0)
        x, weight, bias = CONV[self.op].inputs(self.shape, torch.float32, generator)
        found = {"x": in_layout(x, self.layout), "weight": weight}
        if self.bias:
            found["bias"] = bias
        if self.residual:
            size = (x.shape[0], weight.shape[0], *x.shape[2:])
            found["residual"] = in_layout(torch.randn(size, generator=generator), self.layout)
        if self.groups is not None:
            found["norm_weight"] = 1 + 0.2 * torch.randn(x.shape[1], generator=generator)
            found["norm_bias"] = 0.2 * torch.randn(x.shape[1], generator=generator)
        return found

    def __call__(self, tensors: dict[str, Tensor], **options: object) -> Tensor:
        """The public function on these inputs."""
        rest = {name: t for name, t in tensors.items() if not name.startswith("norm")}
        if self.groups is not None:
            options["norm"] = vk.NormPrologue(
                tensors["norm_weight"], tensors["norm_bias"], self.groups
            )
        if self.padding is not None:
            options["padding"] = self.padding
        function = getattr(vk, self.op)
        return function(**rest, activation=self.activation, negative_slope=SLOPE, **options)

    def results(
        self, tensors: dict[str, Tensor], grad: Tensor | None, **options: object
    ) -> dict[str, Tensor]:
        """Y and the gradient of every input, for the gradient ``grad`` of y (None: random)."""
        leaves = {name: t.detach().requires_grad_() for name, t in tensors.items()}
        y = self(leaves, **options)
        if grad is None:
            grad = in_layout(random_like(y), self.layout)
        gradients = torch.autograd.grad(y, list(leaves.values()), grad)
        return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def random_like(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)


def every_op(shape: tuple[int, ...] = (2, 5, 7, 6, 8), **options: object) -> list[Conv]:
    """A call of each op; both paddings, and conv3x3 with all that it can do."""
    return [
        *(Conv(op, shape, **options) for op in CONV if op != "downsample_conv3x3"),
        Conv("downsample_conv3x3", shape, padding="asymmetric", **options),
        Conv("downsample_conv3x3", shape, padding="symmetric", **options),
        Conv("conv3x3", shape, residual=True, groups=1, **options),
    ]


def name_of(conv: object) -> str | None:
    """For the ids of tests."""
    if not isinstance(conv, Conv):
        return None
    parts = [conv.op, conv.padding, conv.activation]
    parts.append(None if conv.groups is None else f"norm{conv.groups}")
    return "-".join(part for part in parts if part)


def skip_if_refused(backend: str, op: str = "conv3x3") -> None:
    reasons = registry.refusals(backend, op, "cpu", torch.float32)
    if reasons:
        pytest.skip(f"{backend}: {'; '.join(reasons)}")


def check(
    conv: Conv,
    backend: str,
    dtype: torch.dtype = torch.float32,
    precisions: Sequence[str] = PRECISIONS,
    device: str = "cpu",
    roundings: int = 0,
) -> None:
    """In every tier: y and every gradient against float64, and y without gradients as well.

    ``roundings`` of y to 16 bits are more than the one of PyTorch on a CPU: cuDNN's results, for
    one, are rounded before a bias is added.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in conv.tensors().items()}
    with torch.no_grad():
        y = conv(tensors, backend="reference")
    grad = in_layout(random_like(y), conv.layout)
    exact_tensors = {name: tensor.double() for name, tensor in tensors.items()}
    exact = conv.results(exact_tensors, grad.double(), backend="reference")
    eager = eager_errors(conv, tensors, grad, exact)
    # The filters that upsampling folds into are rounded to the type of the products.
    folds = backend == "triton" and conv.op == "upsample_conv3x3" and dtype != torch.float32
    rounding = torch.finfo(dtype).eps / 2 if dtype != torch.float32 else 0.0
    floor = rounding if folds else 0.0
    floor_of_y = floor + roundings * rounding
    for precision in precisions:
        placed = {name: tensor.to(device) for name, tensor in tensors.items()}
        results = conv.results(placed, grad.to(device), backend=backend, precision=precision)
        got = {name: value.cpu() for name, value in results.items()}
        with torch.no_grad():
            inference = conv(placed, backend=backend, precision=precision).cpu()
        for value in (*got.values(), inference):
            assert value.dtype == dtype, conv
        for y in (got["y"], inference):
            what = f"{conv} {precision} y"
            assert_close(what, y, eager["y"], exact["y"], precision, floor=floor_of_y)
        if conv.activation in ("relu", "leaky_relu"):
            # A result near zero may have either sign: gradients are those of the sign it has.
            linear = replace(conv, activation=None)
            slope = 0.0 if conv.activation == "relu" else SLOPE
            masked = torch.where(got["y"] > 0, grad, grad * slope)
            doubled = linear.results(exact_tensors, masked.double(), backend="reference")
            exact |= _gradients(doubled)
            eager |= _gradients(eager_errors(linear, tensors, masked, doubled))
        for name, value in _gradients(got).items():
            what = f"{conv} {precision} gradient of {name}"
            pixels = grad[:, 0].numel()
            assert_close(what, value, eager[name], exact[name], precision, pixels, floor)


def eager_errors(
    conv: Conv, tensors: dict[str, Tensor], grad: Tensor, exact: dict[str, Tensor]
) -> dict[str, float]:
    """The errors of plain PyTorch by name: of NCHW and channels_last, which differ, the larger."""
    errors: dict[str, float] = {}
    for layout in ("contiguous", "channels_last"):
        laid_out = {name: in_layout(tensor, layout) for name, tensor in tensors.items()}
        results = conv.results(laid_out, in_layout(grad, layout), backend="reference")
        for name, value in results.items():
            errors[name] = max(errors.get(name, 0.0), error(value, exact[name]))
    return errors


def check_tf32(conv: Conv, device: str = "cpu") -> None:
    """In the tier "medium" factors are the nearest tf32, and nothing else is rounded to it.

    So results are those of factors that were rounded before, in float64; hence the bound: a factor
    has an error of 2^-11, a product that of two.
    """
    tensors = conv.tensors()
    if conv.op == "upsample_conv3x3":
        # Sums of taps are rounded, and not the taps: these have sums that are tf32.
        tensors["weight"] = (64 * tensors["weight"]).round() / 64
    with torch.no_grad():
        grad = random_like(conv(tensors, backend="reference"))
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    got = conv.results(placed, grad.to(device), backend="triton", precision="medium")
    exact_tensors = {name: tensor.double() for name, tensor in tensors.items()}
    exact = conv.results(exact_tensors, grad.double(), backend="reference")
    rounded = {name: nearest_tf32(tensor) for name, tensor in tensors.items() if name != "bias"}
    expected = conv.results(exact_tensors | rounded, nearest_tf32(grad), backend="reference")
    expected["bias"] = exact["bias"]
    for name, value in got.items():
        assert error(value.cpu(), expected[name]) <= HIGH, name
        if name != "bias":
            assert error(value.cpu(), exact[name]) > HIGH, name


def nearest_tf32(x: Tensor) -> Tensor:
    """In float64: 11 significant bits, ties to even."""
    mantissa, exponent = torch.frexp(x.double())
    return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


_Value = TypeVar("_Value")


def _gradients(results: dict[str, _Value]) -> dict[str, _Value]:
    return {name: value for name, value in results.items() if name != "y"}


def assert_close(
    what: str,
    got: Tensor,
    eager: float,
    exact: Tensor,
    precision: str,
    pixels: int = 1,
    floor: float = 0.0,
) -> None:
    """Within the tier's promise of the largest exact number; where highest, as exact as eager too.

    ``eager`` is plain PyTorch's error. The gradient of a vector sums over ``pixels``, for which
    its tolerance has a floor. In 16 bits every tier is as exact as eager, but for ``floor``.
    """
    assert got.shape == exact.shape, what
    assert torch.isfinite(got).all(), what
    as_eager = tolerance(eager, got.dtype, pixels if got.ndim == 1 else 1) + floor
    promised = {"medium": MEDIUM, "high": HIGH, "highest": min(as_eager, HIGH)}
    bound = promised[precision] if got.dtype == torch.float32 else as_eager
    assert error(got, exact) <= bound, what
