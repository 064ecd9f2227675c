"""Running a chain of layers as one op, where it is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels import ops
from vaekernels.integrations.accelerate.memory_format import is_like, laid_out_like, takes
from vaekernels.integrations.accelerate.module_patterns import (
    ASYMMETRIC,
    CONVOLUTIONS,
    IDLE,
    PROJECTION,
    Step,
    part,
)
from vaekernels.integrations.accelerate.statistics import convolve, keep
from vaekernels.nn.unmodified import all_are_observed, is_observed
from vaekernels.ops._chained import CHAINED

_ACTIVATIONS = {"s": "silu", "r": "relu", "l": "leaky_relu"}
_HEADS = {
    "c": "conv3x3",
    "nsc": "conv3x3",
    "ca": "conv3x3",
    "nsca": "conv3x3",
    "uc": "upsample_conv3x3",
    "d": "downsample_conv3x3",
    "pe": "downsample_conv3x3",
    "f": "downsample_conv4x4",
    "t": "conv_transpose4x4",
}
# The letters of a chain (layers.py) -> the op that computes it.
OPS = {
    "n": "group_norm_silu",
    "ns": "group_norm_silu",
    **{head + last: op for head, op in _HEADS.items() for last in ("", *_ACTIVATIONS)},
}


def run(
    steps: Sequence[Step],
    x: Tensor,
    residual: Tensor | None,
    projection: nn.Module | None,
    precision: str | None,
    like: Tensor | None,
    asks: bool,
) -> Tensor:
    """Run ``steps`` on ``x``: as one op where they still are one and no hook wants to see them.

    Args:
        steps: layers, or functions by their letters.
        x: goes through all of them.
        residual: what the step "a" adds.
        projection: a 1x1 convolution, whose result on the residual is added; or None.
        precision: of a convolution; None is the one in force.
        like: None leaves the layout of the result open; else it is what PyTorch's would be, had
            the layers before them computed from ``like``.
        asks: whether a normalisation comes next.
    """
    layers = [step for step in (*steps, projection) if isinstance(step, nn.Module)]
    if not (all_are_observed() or any(map(is_observed, layers))):
        y = fused(steps, x, residual, precision, like, projection, asks)
        if y is not None:
            return y
    if projection is not None:
        residual = projection(residual)
    for step in steps:
        x = step(x) if isinstance(step, nn.Module) else _function(*step, x, residual)
    if like is None:
        return x
    filters = [layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    return laid_out_like(x, like, *filters)


def fused(
    steps: Sequence[Step],
    x: object,
    residual: object,
    precision: str | None,
    like: Tensor | None,
    projection: nn.Module | None = None,
    asks: bool = False,
) -> Tensor | None:
    """The result of ``steps`` by one op; None where no op takes them as they are now."""
    parts = [part(step) for step in steps]
    op = OPS.get("".join([letter for letter, _ in parts]))
    if op is None or not takes(x):
        return None
    norm: Any = None
    conv: Any = None
    options: dict[str, Any] = {}
    for step, (letter, slope) in zip(steps, parts, strict=True):
        if letter == "n":
            norm = step
        elif letter and letter in CONVOLUTIONS:
            conv = step
        elif letter == "p":
            options["padding"] = "asymmetric"
        elif letter == "a":
            options["residual"] = residual
        elif letter in _ACTIVATIONS and (conv is not None or op == "group_norm_silu"):
            options["activation"] = _ACTIVATIONS[letter]
            if conv is not None:
                options["negative_slope"] = slope
    if norm is not None:
        scale, shift = norm.weight, norm.bias
        # F.group_norm refuses one value per group: let it.
        fits = x.ndim >= 2 and x.shape[1] == norm.num_channels and x.numel() != norm.num_groups
        if not (fits and is_like(scale, x) and is_like(shift, x)):
            return None
        if conv is None:
            options.setdefault("activation", None)
            y = ops.group_norm_silu(x, scale, shift, norm.num_groups, eps=norm.eps, **options)
            return y if like is None else laid_out_like(y, like)
        options["norm"] = ops.NormPrologue(scale, shift, norm.num_groups, norm.eps)
    weight, bias = conv.weight, conv.bias
    if not (_is_wide_enough(x, conv) and is_like(weight, x) and (bias is None or is_like(bias, x))):
        return None
    if "residual" in options:
        channels = conv.out_channels
        if projection is not None:
            if not _projects(projection, conv, x):
                return None
            channels = projection.in_channels
            options["projection"] = projection.weight, projection.bias
        if not is_like(residual, x) or residual.shape != (x.shape[0], channels, *x.shape[2:]):
            return None
    if op == "downsample_conv3x3":
        options.setdefault("padding", "symmetric")
    statistics = None
    if op in CHAINED and "activation" not in options:
        settings = {**options, "precision": precision}
        y, statistics = convolve(op, x, weight, bias, asks, **settings)
    else:
        y = getattr(ops, op)(x, weight, bias, precision=precision, **options)
    return keep(y if like is None else laid_out_like(y, like, conv), statistics)


def _projects(projection: Any, conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the op takes it as it is now."""
    tensors = [projection.weight, *([] if projection.bias is None else [projection.bias])]
    fits = part(projection)[0] == PROJECTION and projection.out_channels == conv.out_channels
    return fits and all(is_like(tensor, x) for tensor in tensors)


def _is_wide_enough(x: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    if x.ndim != 4 or x.shape[1] != conv.in_channels:
        return False
    smallest = 2 if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2) else 1
    return x.shape[2] >= smallest and x.shape[3] >= smallest


# Those that were traced: what the names stand for now may be something around them.
_silu, _relu, _leaky_relu, _interpolate, _pad = F.silu, F.relu, F.leaky_relu, F.interpolate, F.pad


def _function(letter: str, slope: float, x: Tensor, residual: Tensor | None) -> Tensor:
    if letter == "s":
        return _silu(x)
    if letter == "r":
        return _relu(x)
    if letter == "l":
        return _leaky_relu(x, slope)
    if letter == "u":
        return _interpolate(x, scale_factor=2.0, mode="nearest")
    if letter == "p":
        return _pad(x, ASYMMETRIC)
    if letter == "a":
        assert residual is not None
        return x + residual
    assert letter == IDLE  # a division by 1
    return x
