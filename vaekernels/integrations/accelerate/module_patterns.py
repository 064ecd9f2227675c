"""What a layer is to the ops: the letter of its part in a chain, or why it has none.

Layers are asked each time they run, never remembered: what a user changes on one of them
(``stride``, ``padding_mode``, ``forward``) counts from the next call on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from vaekernels.nn.unmodified import (
    convolution_geometry,
    forward_of_class,
    is_from_torch,
    original_class,
    runs_forward_of,
    runs_function_of,
    square_geometry,
)

# Letters: n GroupNorm, s SiLU, r ReLU, l LeakyReLU, u nearest-2x, p padding (0, 1, 0, 1),
# a residual; convolutions: c 3x3, d 3x3 with stride 2, e the same without padding,
# f 4x4 with stride 2, t 4x4 transposed; o 1x1, of a residual.
CONVOLUTIONS = "cdeft"
PROJECTION = "o"
IDLE = ""  # does nothing just now
OTHER = "?"  # nothing for the ops

# A layer, or the letter and the slope of a function that stands for one.
Step = nn.Module | tuple[str, float]

ASYMMETRIC = (0, 1, 0, 1)
_CONV2D = {
    (3, 1, 1): "c",
    (3, 2, 1): "d",
    (3, 2, 0): "e",
    (4, 2, 1): "f",
    (1, 1, 0): PROJECTION,
}


# Letters of functions -> the layers that call them.
_LIKE_FUNCTIONS: dict[str, type[nn.Module]] = {
    "s": nn.SiLU,
    "r": nn.ReLU,
    "l": nn.LeakyReLU,
    "u": nn.Upsample,
    "p": nn.ConstantPad2d,
}


def is_torch_layer(module: nn.Module) -> bool:
    """Whether ``module`` is one of PyTorch's as it is there, which take any layout."""
    kind = original_class(module)
    unchanged = "forward" not in module.__dict__ and is_from_torch(forward_of_class(kind))
    return unchanged and kind.__module__.startswith("torch.nn.modules.")


def part(step: Step) -> tuple[str, float]:
    """The letter of ``step``, and the slope of a leaky_relu."""
    if isinstance(step, tuple):
        like = _LIKE_FUNCTIONS.get(step[0])
        return step if like is None or runs_function_of(like) else (OTHER, 0.0)
    kind = original_class(step)
    try:
        known = _known[kind]
    except KeyError:
        known = _known[kind] = next((k for k in _LETTERS if issubclass(kind, k)), None)
    if known is None or not runs_forward_of(step, known):
        return OTHER, 0.0
    letter = _LETTERS[known]
    slope: Any = step.negative_slope if letter is _leaky_relu else 0.0
    return letter(step), slope


# Class -> the class of PyTorch's that it is derived from.
_known: dict[type[nn.Module], type[nn.Module] | None] = {}


def reason(module: nn.Module) -> str:
    """Why the letter of ``module`` is OTHER, or why it has no op of its own."""
    name = original_class(module).__name__
    for kind in _LETTERS:
        if isinstance(module, kind):
            if "_conv_forward" in module.__dict__:
                return "_conv_forward was replaced"
            if not runs_forward_of(module, kind):
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


def _conv2d(conv: Any) -> str:
    return _CONV2D.get(convolution_geometry(conv), OTHER)  # type: ignore[arg-type]


def _conv_transpose2d(conv: Any) -> str:
    return "t" if convolution_geometry(conv) == (4, 2, 1) else OTHER


def _group_norm(norm: Any) -> str:
    fits = norm.weight is not None and norm.bias is not None and norm.eps > 0
    return "n" if fits else OTHER


def _leaky_relu(layer: Any) -> str:
    return "l" if layer.negative_slope >= 0 else OTHER


def _dropout(layer: Any) -> str:
    return OTHER if layer.training and layer.p > 0 else IDLE


def _upsample(layer: Any) -> str:
    doubles = layer.size is None and layer.scale_factor in (2.0, (2.0, 2.0))
    return "u" if doubles and layer.mode == "nearest" else OTHER


def _pad(layer: Any) -> str:
    return "p" if tuple(layer.padding) == ASYMMETRIC and layer.value == 0 else OTHER


def _silu(layer: Any) -> str:
    return "s"


def _relu(layer: Any) -> str:
    return "r"


def _identity(layer: Any) -> str:
    return IDLE


_LETTERS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _conv2d,
    nn.ConvTranspose2d: _conv_transpose2d,
    nn.GroupNorm: _group_norm,
    nn.SiLU: _silu,
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky_relu,
    nn.Identity: _identity,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
    nn.Upsample: _upsample,
    nn.ZeroPad2d: _pad,
    nn.ConstantPad2d: _pad,
}
