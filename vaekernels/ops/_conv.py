"""Shared by the convolutions: definition, docstring blocks, argument checks, and the call."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS, OpDefinition, define, input_names
from vaekernels.ops._checks import check_device, check_floating, check_per_channel
from vaekernels.ops._filters import constant
from vaekernels.ops._precision import conv_precision, cpu_precision

# Triton's kernels number the pixels of a batch, borders included, with 32 bits.
_PIXELS = 2**31
ACTIVATIONS = (None, "relu", "silu", "leaky_relu")
CONVOLUTIONS: list[str] = []  # filled by define_conv
_ACTIVATIONS = ("x", "residual", "statistics")


_Function = TypeVar("_Function", bound=Callable[..., Tensor])
# The parts that the docstrings of the convolutions share.
_DOCSTRING_BLOCKS = {
    "options": """\
activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``; applied last.
negative_slope: slope of leaky_relu for negative numbers; at least 0.
precision: ``"medium"``, ``"high"``, ``"highest"``, or None for the current one
    (``vk.set_conv_precision``).
backend: one of ``vk.BACKENDS``; None chooses.""",
    "raises": """\
TypeError: an argument has the wrong type, or another dtype than ``x`` (under autocast
    dtypes may differ, as in F.conv2d).
ValueError: a shape, a device or a named option is invalid.
BackendError: an explicitly chosen backend cannot run the call.""",
    "precision": """\
Precision: in float32 ``"high"`` is within 2e-5 of the largest result, the same for each
gradient; ``"medium"`` is ``"high"`` on CPUs and within 2e-3 on GPUs; ``"highest"``, and 16 bits
in every tier, have an error like that of plain PyTorch.
Dtypes without kernels (cpu: all but float32; triton: float64) run PyTorch's own convolution.""",
}


def conv_docstring(function: _Function) -> _Function:
    """Fill the lines ``%(name)s`` of a docstring with the block of that name."""

    def block(line: re.Match[str]) -> str:
        return textwrap.indent(_DOCSTRING_BLOCKS[line[2]], line[1])

    if function.__doc__ is not None:  # None under ``python -OO``
        pattern = r"^( *)%\((\w+)\)s$"
        function.__doc__ = re.sub(pattern, block, function.__doc__, flags=re.MULTILINE)
    return function


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
    """An empty channels_last result, for the fakes."""
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
    """Check the images, the filters and the bias of a convolution.

    Args:
        op: name of the op, for the errors.
        x: (N, Ci, H, W).
        weight: (Co, Ci, kernel, kernel), or (Ci, Co, kernel, kernel) if ``transposed``.
        bias: (Co,) or None.
        kernel: taps in each direction.
        smallest: smallest height and width with a result of at least one pixel.
        transposed: ``weight`` has its input channels first.
    """
    # Sizes are read once: each access of Tensor.shape takes longer than a comparison.
    images, filters = check_floating(op, "x", x), check_floating(op, "weight", weight)
    shape, sizes = images.shape, filters.shape
    if len(shape) != 4:
        raise ValueError(f"{op}: x must have shape (N, C, H, W); got {tuple(shape)}")
    _, channels, height, width = shape
    if height < smallest or width < smallest:
        raise ValueError(
            f"{op}: x must be at least {smallest} pixels high and wide; got {tuple(shape)}"
        )
    if channels < 1:
        raise ValueError(f"{op}: x must have at least one channel; got {tuple(shape)}")
    incoming, outgoing = (0, 1) if transposed else (1, 0)
    if (
        len(sizes) != 4
        or sizes[2] != kernel
        or sizes[3] != kernel
        or sizes[incoming] != channels
        or sizes[outgoing] < 1
    ):
        dims = f"{channels}, Co" if transposed else f"Co, {channels}"
        raise ValueError(
            f"{op}: weight must have shape ({dims}, {kernel}, {kernel}), for the {channels} "
            f"channels of x; got {tuple(sizes)}"
        )
    check_device(op, "weight", filters, "x", images)
    check_dtype(op, "weight", filters, images)
    if bias is not None:
        vector = check_per_channel(op, "bias", bias, sizes[outgoing], images)
        check_dtype(op, "bias", vector, images)


def check_residual(op: str, residual: object, shape: tuple[int, ...], x: Tensor) -> None:
    """Check that ``residual`` has the shape of the result."""
    residual = check_floating(op, "residual", residual)
    if residual.shape != shape:
        raise ValueError(
            f"{op}: residual must have the shape of the result, {tuple(shape)}; "
            f"got {tuple(residual.shape)}"
        )
    check_device(op, "residual", residual, "x", x)
    check_dtype(op, "residual", residual, x)


def check_dtype(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    """Check that ``tensor`` has the dtype of ``x``; under autocast dtypes may differ."""
    if tensor.dtype != x.dtype and autocast_dtype(x) is None:
        raise TypeError(f"{op}: {name} must have the dtype of x, {x.dtype}; got {tensor.dtype}")


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast gives ``x`` in F.conv2d; None where autocast is not active."""
    if not torch._C._is_any_autocast_enabled() or x.dtype == torch.float64:
        return None
    device = x.device.type
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
    """Select a backend for ``op`` and call it. All arguments but the last four are checked before.

    Args:
        op: name of the op.
        tensors: the first arguments, in the order of the schema, beginning with x and weight.
        settings: the arguments of the schema between the tensors and the activation.
        activation: one of ``ACTIVATIONS``.
        negative_slope: slope of leaky_relu for negative numbers.
        precision: a tier; None is the current one.
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
        # The gradient of silu needs its argument, which cannot be recovered from y.
        return F.silu(kernel(*tensors, *settings, None, negative_slope, tier))
    return kernel(*tensors, *settings, activation, negative_slope, tier)


def record_call(op: str, arguments: dict[str, Any]) -> None:
    """Add ``arguments``, by their names in the schema, to the choice that was just recorded."""
    # Activations are recorded as meta tensors: the record of a model must not keep them alive.
    given = [name for name in _ACTIVATIONS if arguments.get(name) is not None]
    metas = {name: torch.empty_like(arguments[name], device="meta") for name in given}
    registry.amend_choice(op=op, arguments={**arguments, **metas})


def _limits(x: Tensor) -> dict[str, str] | None:
    """Backends that do not support images of this shape -> the reason."""
    batch, _, height, width = x.shape
    # With the border; results of twice the size have as many cells.
    if batch * (height + 4) * (width + 4) < _PIXELS:
        return None
    return {"triton": f"batches must have less than 2**31 pixels; x is {tuple(x.shape)}"}


def wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether autograd records operations on ``tensors``."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
