"""Classification of modules and functions into the kinds that fused ops are made of.

Pattern matching happens at call time: each layer is classified from its class and its current
attributes, so that what a user changes (``stride``, ``padding_mode``, ``forward``) takes effect at
the next call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from vaekernels.integrations.accelerate.guards import AttributeRead, Untraceable
from vaekernels.nn.unmodified import (
    TENSOR_METHODS,
    convolution_geometry,
    forward_of_class,
    is_from_torch,
    original_class,
    runs_forward_of,
    runs_function_of,
    square_geometry,
)


class LayerKind(str, Enum):
    """What a layer or a function computes, as far as the ops are concerned."""

    GROUP_NORM = "group_norm"
    SILU = "silu"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    UPSAMPLE = "upsampling"  # nearest-neighbour, by 2
    PAD = "padding"  # zeros: (0, 1, 0, 1)
    RESIDUAL = "residual"  # the sum with another tensor
    CONV3X3 = "conv3x3"
    CONV3X3_STRIDE2 = "conv3x3_stride2"  # padding 1
    CONV3X3_STRIDE2_UNPADDED = "conv3x3_stride2_unpadded"
    CONV4X4_STRIDE2 = "conv4x4_stride2"  # padding 1
    CONV_TRANSPOSE4X4 = "conv_transpose4x4"  # stride 2, padding 1
    CONV1X1 = "conv1x1"  # only as the projection of a residual
    IDENTITY = "identity"
    OTHER = "other"  # no op takes it


# A function: its kind, and the negative slope of a leaky_relu.
FunctionStep = tuple[LayerKind, float]
Step = nn.Module | FunctionStep

ASYMMETRIC = (0, 1, 0, 1)
# Kernel, stride, padding.
_CONV2D = {
    (3, 1, 1): LayerKind.CONV3X3,
    (3, 2, 1): LayerKind.CONV3X3_STRIDE2,
    (3, 2, 0): LayerKind.CONV3X3_STRIDE2_UNPADDED,
    (4, 2, 1): LayerKind.CONV4X4_STRIDE2,
    (1, 1, 0): LayerKind.CONV1X1,
}
CONVOLUTIONS = {*_CONV2D.values(), LayerKind.CONV_TRANSPOSE4X4} - {LayerKind.CONV1X1}

# Kinds of functions -> the layers that call them.
_LAYER_OF_FUNCTION: dict[LayerKind, type[nn.Module]] = {
    LayerKind.SILU: nn.SiLU,
    LayerKind.RELU: nn.ReLU,
    LayerKind.LEAKY_RELU: nn.LeakyReLU,
    LayerKind.UPSAMPLE: nn.Upsample,
    LayerKind.PAD: nn.ConstantPad2d,
}


def is_torch_layer(module: nn.Module) -> bool:
    """Whether ``module`` is an unmodified layer of PyTorch, which takes any memory format."""
    cls = original_class(module)
    unchanged = "forward" not in module.__dict__ and is_from_torch(forward_of_class(cls))
    return unchanged and cls.__module__.startswith("torch.nn.modules.")


def match_layer(step: Step) -> LayerKind:
    """The kind of ``step``, as it is now."""
    if isinstance(step, tuple):
        kind = step[0]
        layer = _LAYER_OF_FUNCTION.get(kind)
        return kind if layer is None or runs_function_of(layer) else LayerKind.OTHER
    cls = original_class(step)
    try:
        base = _torch_base[cls]
    except KeyError:
        base = _torch_base[cls] = next((b for b in _CLASSIFIERS if issubclass(cls, b)), None)
    if base is None or not runs_forward_of(step, base):
        return LayerKind.OTHER
    classify = _CLASSIFIERS[base]
    return classify if isinstance(classify, LayerKind) else classify(step)


# Class -> the class of PyTorch's that it is derived from.
_torch_base: dict[type[nn.Module], type[nn.Module] | None] = {}


def reason(module: nn.Module) -> str:
    """Why the kind of ``module`` is OTHER, or why it has no op of its own."""
    name = original_class(module).__name__
    for base in _CLASSIFIERS:
        if isinstance(module, base):
            if "_conv_forward" in module.__dict__:
                return "_conv_forward was replaced"
            if not runs_forward_of(module, base):
                return f"{name} has a forward of its own"
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                return _convolution_reason(module)
            if isinstance(module, nn.GroupNorm):
                return "GroupNorm needs a weight, a bias and a positive eps"
    return f"no op for {name}"


def _convolution_reason(conv: nn.Conv2d | nn.ConvTranspose2d) -> str:
    for name, expected in (("groups", 1), ("dilation", (1, 1)), ("padding_mode", "zeros")):
        if getattr(conv, name) != expected:
            return f"{name} must be {expected!r}; got {getattr(conv, name)!r}"
    got = (
        f"got {'x'.join(map(str, conv.kernel_size))}, stride {conv.stride}, padding {conv.padding}"
    )
    if isinstance(conv, nn.ConvTranspose2d):
        return (
            "transposed convolutions must be 4x4 with stride 2, padding 1 and no output padding; "
            + got
        )
    if square_geometry(conv) == (1, 1, 0):
        return "no op for 1x1; in inference on a GPU, that of a residual is part of what adds it"
    if square_geometry(conv) == (3, 2, 0):
        return "3x3 with stride 2 and no padding fits only behind a padding of (0, 1, 0, 1)"
    return f"expected 3x3 with stride 1 or 2, or 4x4 with stride 2, and padding 1; {got}"


def _conv2d(conv: Any) -> LayerKind:
    return _CONV2D.get(convolution_geometry(conv), LayerKind.OTHER)  # type: ignore[arg-type]


def _conv_transpose2d(conv: Any) -> LayerKind:
    fits = convolution_geometry(conv) == (4, 2, 1)
    return LayerKind.CONV_TRANSPOSE4X4 if fits else LayerKind.OTHER


def _group_norm(norm: Any) -> LayerKind:
    for name in ("weight", "bias"):
        # Reading a registered parameter is ten times faster than nn.Module.__getattr__.
        if norm._parameters.get(name) is None and getattr(norm, name) is None:
            return LayerKind.OTHER
    return LayerKind.GROUP_NORM if norm.eps > 0 else LayerKind.OTHER


def _leaky_relu(layer: Any) -> LayerKind:
    return LayerKind.LEAKY_RELU if layer.negative_slope >= 0 else LayerKind.OTHER


def _dropout(layer: Any) -> LayerKind:
    return LayerKind.OTHER if layer.training and layer.p > 0 else LayerKind.IDENTITY


def _upsample(layer: Any) -> LayerKind:
    doubles = layer.size is None and layer.scale_factor in (2.0, (2.0, 2.0))
    return LayerKind.UPSAMPLE if doubles and layer.mode == "nearest" else LayerKind.OTHER


def _pad(layer: Any) -> LayerKind:
    fits = tuple(layer.padding) == ASYMMETRIC and layer.value == 0
    return LayerKind.PAD if fits else LayerKind.OTHER


# Class of PyTorch's -> the kind of its layers, or a function of a layer that returns it.
_CLASSIFIERS: dict[type[nn.Module], LayerKind | Callable[[Any], LayerKind]] = {
    nn.Conv2d: _conv2d,
    nn.ConvTranspose2d: _conv_transpose2d,
    nn.GroupNorm: _group_norm,
    nn.SiLU: LayerKind.SILU,
    nn.ReLU: LayerKind.RELU,
    nn.LeakyReLU: _leaky_relu,
    nn.Identity: LayerKind.IDENTITY,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
    nn.Upsample: _upsample,
    nn.ZeroPad2d: _pad,
    nn.ConstantPad2d: _pad,
}


def function_step(node: fx.Node) -> FunctionStep | None:
    """The kind of what ``node`` does to its first argument, and its slope; None for no step."""
    name = node.target if node.op == "call_method" else _NAMES.get(node.target)
    step = _STEPS.get(str(name))
    return None if step is None else step(node)


def methods_of(graph: fx.Graph) -> tuple[AttributeRead, ...]:
    """The methods of ``torch.Tensor`` that ``graph`` calls and steps may stand for.

    Raises:
        Untraceable: one was replaced.
    """
    names = {
        node.target if node.op == "call_method" else f"__{getattr(node.target, '__name__', '')}__"
        for node in graph.nodes
        if node.op == "call_method" or getattr(node.target, "__module__", "") == "_operator"
    }
    reads = tuple(
        AttributeRead(torch.Tensor, name, method)
        for name, method in TENSOR_METHODS.items()
        if name in names
    )
    for read in reads:
        if not read.is_unchanged():
            raise Untraceable(f"torch.Tensor.{read.name} was replaced")
    return reads


def simplify(graph: fx.Graph) -> None:
    """Rewrite ``x * sigmoid(x)`` as silu."""
    for node in list(graph.nodes):
        if node.target in (operator.mul, torch.mul) and len(node.args) == 2:
            left, right = node.args
            for x, gate in ((left, right), (right, left)):
                if _is_sigmoid(gate) and gate.args[0] is x and len(gate.users) == 1:
                    with graph.inserting_before(node):
                        node.replace_all_uses_with(graph.call_function(F.silu, (x,)))
                    graph.erase_node(node)
                    graph.erase_node(gate)
                    break


def _is_sigmoid(node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.target in (torch.sigmoid, F.sigmoid, "sigmoid")
        and len(node.args) == 1
    )


def is_in_place(node: fx.Node) -> bool:
    """Whether ``node`` writes into its argument."""
    name = str(getattr(node.target, "__name__", node.target))
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    if node.op == "call_function" and getattr(operator, name, None) is node.target:
        return name == "setitem" or (name[0] == "i" and hasattr(operator, name[1:].rstrip("_")))
    return name.endswith("_") and not name.endswith("__")


_NAMES: dict[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    operator.truediv: "truediv",
    torch.add: "add",
    F.silu: "silu",
    F.relu: "relu",
    torch.relu: "relu",
    F.leaky_relu: "leaky_relu",
    F.interpolate: "interpolate",
    F.pad: "pad",
}


def _add_step(node: fx.Node) -> FunctionStep | None:
    plain = len(node.args) == 2 and isinstance(node.args[1], fx.Node) and not node.kwargs
    return (LayerKind.RESIDUAL, 0.0) if plain else None


def _truediv_step(node: fx.Node) -> FunctionStep | None:
    by_one = len(node.args) == 2 and node.args[1] in (1, 1.0)
    return (LayerKind.IDENTITY, 0.0) if by_one else None


def _leaky_relu_step(node: fx.Node) -> FunctionStep | None:
    slope = _argument(node, 1, "negative_slope", 0.01)
    fits = isinstance(slope, (int, float)) and slope >= 0
    return (LayerKind.LEAKY_RELU, float(slope)) if fits else None


def _interpolate_step(node: fx.Node) -> FunctionStep | None:
    scale = _argument(node, 2, "scale_factor", None)
    doubles = scale in (2, (2, 2), [2, 2]) and _argument(node, 1, "size", None) is None
    nearest = _argument(node, 3, "mode", "nearest") == "nearest"
    return (LayerKind.UPSAMPLE, 0.0) if doubles and nearest else None


def _pad_step(node: fx.Node) -> FunctionStep | None:
    sides = _argument(node, 1, "pad", ())
    zeros = _argument(node, 2, "mode", "constant") == "constant"
    zeros = zeros and _argument(node, 3, "value", None) in (None, 0)
    fits = isinstance(sides, (tuple, list)) and tuple(sides) == ASYMMETRIC
    return (LayerKind.PAD, 0.0) if fits and zeros else None


_STEPS: dict[str, Callable[[fx.Node], FunctionStep | None]] = {
    "add": _add_step,
    "truediv": _truediv_step,
    "silu": lambda node: (LayerKind.SILU, 0.0),
    "relu": lambda node: (LayerKind.RELU, 0.0),
    "leaky_relu": _leaky_relu_step,
    "interpolate": _interpolate_step,
    "pad": _pad_step,
}


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
