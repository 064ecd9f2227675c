"""What a layer is to the ops: the letter of its part in a chain, or why it has none.

Layers are asked each time they run, never remembered: what a user changes on one of them
(``stride``, ``padding_mode``, ``forward``) counts from the next call on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

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


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class of ``module``, or the one it had before it was accelerated."""
    return getattr(type(module), "_vaekernels_original", type(module))


def runs_forward_of(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` computes what a plain ``kind`` does: nobody has overridden it."""
    return original_class(module).forward is kind.forward and "forward" not in module.__dict__


def is_torch_layer(module: nn.Module) -> bool:
    """Whether ``module`` is one of PyTorch's, which take any layout."""
    return original_class(module).__module__.startswith("torch.nn.modules.")


def is_observed(module: nn.Module) -> bool:
    """Whether hooks of its own watch the calls of ``module``, so that it must be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def all_are_observed() -> bool:
    """Whether hooks watch the calls of every module."""
    return _has_any_global_hook()


def part(step: Step) -> tuple[str, float]:
    """The letter of ``step``, and the slope of a leaky_relu."""
    if isinstance(step, tuple):
        return step
    kind = original_class(step)
    try:
        letter = _letters_of[kind]
    except KeyError:
        letter = _letters_of[kind] = _letter_of(kind)
    if letter is None or "forward" in step.__dict__:
        return OTHER, 0.0
    slope: Any = step.negative_slope if letter is _leaky_relu else 0.0
    return letter(step), slope


def _letter_of(kind: type[nn.Module]) -> Callable[[Any], str] | None:
    """What finds the letter of layers of ``kind``; None where it has another forward."""
    for known, letter in _KINDS:
        if issubclass(kind, known) and kind.forward is known.forward:
            return letter
    return None


# Class -> what finds the letter of its layers.
_letters_of: dict[type[nn.Module], Callable[[Any], str] | None] = {}


def reason(module: nn.Module) -> str:
    """Why the letter of ``module`` is OTHER, or why it has no op of its own."""
    name = original_class(module).__name__
    for kind, _ in _KINDS:
        if isinstance(module, kind):
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
    if isinstance(conv, nn.Conv2d) and "_conv_forward" in conv.__dict__:
        return "_conv_forward was replaced"
    got = (
        f"got {'x'.join(map(str, conv.kernel_size))}, stride {conv.stride}, padding {conv.padding}"
    )
    if isinstance(conv, nn.ConvTranspose2d):
        return (
            "transposed convolutions must be 4x4 with stride 2, padding 1 and no output padding; "
            + got
        )
    if _geometry(conv) == (1, 1, 0):
        return "no op for 1x1; in inference on a GPU, that of a residual is part of what adds it"
    if _geometry(conv) == (3, 2, 0):
        return "3x3 with stride 2 and no padding fits only behind a padding of (0, 1, 0, 1)"
    return f"expected 3x3 with stride 1 or 2, or 4x4 with stride 2, and padding 1; {got}"


def _geometry(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int, int] | None:
    """Kernel, stride and padding where both directions have the same."""
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    if padding == "same" and stride == (1, 1):
        padding = (kernel[0] // 2, kernel[1] // 2) if kernel == (3, 3) else padding
    elif padding == "valid":
        padding = (0, 0)
    for pair in (kernel, stride, padding):
        if len(pair) != 2 or pair[0] != pair[1]:
            return None
    return kernel[0], stride[0], padding[0]  # type: ignore[return-value]


def _is_plain(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    return conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"


def _conv2d(conv: Any) -> str:
    kind: Any = original_class(conv)
    own = kind._conv_forward is not nn.Conv2d._conv_forward
    if own or "_conv_forward" in conv.__dict__ or not _is_plain(conv):
        return OTHER
    return _CONV2D.get(_geometry(conv), OTHER)  # type: ignore[arg-type]


def _conv_transpose2d(conv: Any) -> str:
    fits = _geometry(conv) == (4, 2, 1) and conv.output_padding == (0, 0)
    return "t" if fits and _is_plain(conv) else OTHER


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


_KINDS: tuple[tuple[type[Any], Callable[[Any], str]], ...] = (
    (nn.Conv2d, _conv2d),
    (nn.ConvTranspose2d, _conv_transpose2d),
    (nn.GroupNorm, _group_norm),
    (nn.SiLU, _silu),
    (nn.ReLU, _relu),
    (nn.LeakyReLU, _leaky_relu),
    (nn.Identity, _identity),
    (nn.Dropout, _dropout),
    (nn.Dropout2d, _dropout),
    (nn.Upsample, _upsample),
    (nn.ConstantPad2d, _pad),
    (nn.ZeroPad2d, _pad),
)
