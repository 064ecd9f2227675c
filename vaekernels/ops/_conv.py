"""What the convolutions have in common: checks, schema, fake, the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS, OpDefinition, define, input_names
from vaekernels.ops._checks import _floating
from vaekernels.ops._filters import constant
from vaekernels.ops._precision import conv_precision, cpu_precision

# Triton's kernels number the pixels of a batch, borders included, with 32 bits.
_PIXELS = 2**31
ACTIVATIONS = (None, "relu", "silu", "leaky_relu")
CONVOLUTIONS: list[str] = []  # filled by define_conv
_COMPUTED = ("x", "residual", "statistics")


def define_conv(
    reference: Callable[..., Tensor],
    inputs: str,
    fake: Callable[..., Tensor],
    differentiable: Sequence[str] = ("x", "weight", "bias"),
) -> None:
    """Define the convolution that ``reference`` implements, under the same name.

    Args:
        reference: the implementation in plain PyTorch.
        inputs: the arguments in the schema, before activation, negative_slope and precision.
        fake: an empty result.
        differentiable: names of the inputs that receive a gradient. Those of ``x`` and
            ``residual`` are channels_last, as the result is.
    """
    name = reference.__name__
    CONVOLUTIONS.append(name)
    inputs += ", str? activation, float negative_slope, str precision"
    gradients = ", ".join(f"Tensor grad_{argument}" for argument in differentiable)
    define(
        OpDefinition(
            name=name,
            schema=f"({inputs}) -> (Tensor y)",
            fake=fake,
            reference=reference,
            backward_schema=f"(Tensor? grad, {inputs}, Tensor y, bool[{len(differentiable)}] mask)"
            f" -> ({gradients})",
            differentiable=differentiable,
            saved_outputs=("y",),
            channels_last=("x", "residual"),
            backends={
                "cpu": (torch.float32,),
                "triton": (torch.float32, torch.bfloat16, torch.float16),
            },
        )
    )


def empty_result(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """The fake of a result: channels_last, whatever lies before it."""
    shape = (x.shape[0], channels, height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def check_conv(
    op: str,
    x: object,
    weight: object,
    bias: object,
    *,
    kernel: int,
    smallest: int = 1,
    transposed: bool = False,
) -> None:
    """``x`` is (N, Ci, H, W), ``weight`` and ``bias`` fit it.

    Args:
        op: named in the errors.
        x: the images.
        weight: (Co, Ci, kernel, kernel), or (Ci, Co, kernel, kernel) where ``transposed``.
        bias: (Co,) or None.
        kernel: taps in each direction.
        smallest: height and width that give a result of at least one pixel.
        transposed: weight has its input channels first.
    """
    x = _floating(op, "x", x)
    if x.ndim != 4:
        raise ValueError(f"{op}: x must have shape (N, C, H, W); got {tuple(x.shape)}")
    if x.shape[2] < smallest or x.shape[3] < smallest:
        raise ValueError(
            f"{op}: x must be at least {smallest} pixels high and wide; got {tuple(x.shape)}"
        )
    weight = _floating(op, "weight", weight)
    incoming, outgoing = (0, 1) if transposed else (1, 0)
    channels = x.shape[1]
    if channels < 1:
        raise ValueError(f"{op}: x must have at least one channel; got {tuple(x.shape)}")
    if (
        weight.ndim != 4
        or weight.shape[2] != kernel
        or weight.shape[3] != kernel
        or weight.shape[incoming] != channels
        or weight.shape[outgoing] < 1
    ):
        dims = f"{channels}, Co" if transposed else f"Co, {channels}"
        raise ValueError(
            f"{op}: weight must have shape ({dims}, {kernel}, {kernel}), for the {channels} "
            f"channels of x; got {tuple(weight.shape)}"
        )
    _check_like_x(op, "weight", weight, x)
    if bias is not None:
        check_channels(op, "bias", bias, weight.shape[outgoing], x)


def check_channels(op: str, name: str, value: object, channels: int, x: Tensor) -> None:
    """``value`` is a vector with a number per channel, like ``x``."""
    value = _floating(op, name, value)
    if value.ndim != 1 or value.shape[0] != channels:
        raise ValueError(
            f"{op}: {name} must have shape ({channels},), one number per channel; "
            f"got {tuple(value.shape)}"
        )
    _check_like_x(op, name, value, x)


def check_residual(op: str, residual: object, shape: tuple[int, ...], x: Tensor) -> None:
    """``residual`` has the result's shape."""
    residual = _floating(op, "residual", residual)
    if residual.shape != shape:
        raise ValueError(
            f"{op}: residual must have the shape of the result, {tuple(shape)}; "
            f"got {tuple(residual.shape)}"
        )
    _check_like_x(op, "residual", residual, x)


def _check_like_x(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.device != x.device:
        raise ValueError(
            f"{op}: {name} must be on the device of x, {x.device}; got {tensor.device}"
        )
    if tensor.dtype != x.dtype and autocast_dtype(x) is None:
        raise TypeError(f"{op}: {name} must have the dtype of x, {x.dtype}; got {tensor.dtype}")


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast turns x into in F.conv2d; None where it does not."""
    device = x.device.type
    if x.dtype == torch.float64:
        return None
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def run_conv(
    op: str,
    tensors: tuple[Tensor | None, ...],
    settings: tuple[object, ...],
    activation: str | None,
    negative_slope: float,
    precision: str | None,
    backend: str | None,
) -> Tensor:
    """Call ``op`` on the backend that takes it.

    Args:
        op: the op.
        tensors: its first arguments, in the schema's order; x and weight are the first of them.
        settings: the arguments between them and the activation.
        activation: one of ``ACTIVATIONS``.
        negative_slope: of leaky_relu.
        precision: a tier; None is the one in force.
        backend: one of ``vk.BACKENDS``; None chooses.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{op}: activation must be None, 'relu', 'silu' or 'leaky_relu'; got {activation!r}"
        )
    if not isinstance(negative_slope, (int, float)):
        kind = type(negative_slope).__name__
        raise TypeError(f"{op}: negative_slope must be a number; got {kind}")
    if not 0.0 <= negative_slope < float("inf"):
        # A negative one would hide the sign that backward reads from the result.
        raise ValueError(f"{op}: negative_slope must be at least 0; got {negative_slope}")
    x, weight, *_ = tensors
    assert x is not None
    assert weight is not None
    tier = conv_precision(op, precision)
    # Under autocast F.conv2d computes in another dtype than x has; so the backend is chosen for it.
    dtype = autocast_dtype(x)
    kernel = registry.implementation(op, x, backend, dtype, _limits(x))
    eager = not torch.compiler.is_compiling()
    if eager and registry.is_recording():
        values = (*tensors, *settings, activation, negative_slope, tier)
        record_call(op, dict(zip(input_names(DEFINITIONS[op]), values, strict=True)))
    if isinstance(kernel, OpOverload):
        if dtype is not None:
            # What F.conv2d takes; a normalisation keeps its weights, as F.group_norm does.
            tensors = (*(t if t is None else t.to(dtype) for t in tensors[:4]), *tensors[4:])
        if kernel.namespace == "vaekernels":
            tier = cpu_precision(tier)
            if eager and dtype is None:
                tensors = (x, constant(weight), *tensors[2:])
    if activation == "silu" and wants_gradient(tensors):
        # The gradient of silu needs its argument, which y does not tell.
        return F.silu(kernel(*tensors, *settings, None, negative_slope, tier))
    return kernel(*tensors, *settings, activation, negative_slope, tier)


def record_call(op: str, arguments: dict[str, Any]) -> None:
    """Add ``arguments``, by their names in the schema, to the choice that was just recorded."""
    # A record of a whole model must not hold what it computes.
    given = [name for name in _COMPUTED if arguments.get(name) is not None]
    outlines = {name: torch.empty_like(arguments[name], device="meta") for name in given}
    registry.amend_choice(op=op, arguments={**arguments, **outlines})


def _limits(x: Tensor) -> dict[str, str] | None:
    """The backends that do not take images of this shape, and why."""
    batch, _, height, width = x.shape
    # With the border; results of twice the size have as many cells.
    if batch * (height + 4) * (width + 4) < _PIXELS:
        return None
    return {"triton": f"batches must have less than 2**31 pixels; x is {tuple(x.shape)}"}


def wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether a graph is recorded of what is made of them."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
