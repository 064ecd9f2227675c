"""Running a chain of layers as one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels import ops
from vaekernels.integrations.accelerate.memory_format import (
    is_compatible,
    is_supported_input,
    match_memory_format,
    to_layout_of,
)
from vaekernels.integrations.accelerate.patterns import (
    ASYMMETRIC,
    CONVOLUTIONS,
    LayerKind,
    Step,
    match_layer,
)
from vaekernels.integrations.accelerate.statistics import attach_statistics, statistics_of
from vaekernels.nn.unmodified import all_are_observed, is_observed
from vaekernels.ops._chained import CHAINED, chained_conv

_ACTIVATIONS = (LayerKind.SILU, LayerKind.RELU, LayerKind.LEAKY_RELU)
_NORM_SILU = (LayerKind.GROUP_NORM, LayerKind.SILU)
_WITHOUT_ACTIVATION = {
    (LayerKind.CONV3X3,): "conv3x3",
    (LayerKind.CONV3X3, LayerKind.RESIDUAL): "conv3x3",
    (*_NORM_SILU, LayerKind.CONV3X3): "conv3x3",
    (*_NORM_SILU, LayerKind.CONV3X3, LayerKind.RESIDUAL): "conv3x3",
    (LayerKind.UPSAMPLE, LayerKind.CONV3X3): "upsample_conv3x3",
    (LayerKind.CONV3X3_STRIDE2,): "downsample_conv3x3",
    (LayerKind.PAD, LayerKind.CONV3X3_STRIDE2_UNPADDED): "downsample_conv3x3",
    (LayerKind.CONV4X4_STRIDE2,): "downsample_conv4x4",
    (LayerKind.CONV_TRANSPOSE4X4,): "conv_transpose4x4",
}
# The kinds of the layers of a chain -> the op that computes it.
OPS: dict[tuple[LayerKind, ...], str] = {
    (LayerKind.GROUP_NORM,): "group_norm_silu",
    _NORM_SILU: "group_norm_silu",
    **_WITHOUT_ACTIVATION,
    **{(*k, last): op for k, op in _WITHOUT_ACTIVATION.items() for last in _ACTIVATIONS},
}


def _call_of(kinds: tuple[LayerKind, ...], op: str) -> tuple[str, dict[str, Any], int]:
    """``op``, its options that depend on the kinds alone, and the position of the convolution."""
    options: dict[str, Any] = {}
    if op == "group_norm_silu":
        options["activation"] = "silu" if LayerKind.SILU in kinds else None
    elif kinds[-1] in _ACTIVATIONS:
        options["activation"] = kinds[-1].value
    if op == "downsample_conv3x3":
        options["padding"] = "asymmetric" if LayerKind.PAD in kinds else "symmetric"
    return op, options, next((i for i, kind in enumerate(kinds) if kind in CONVOLUTIONS), -1)


_CALLS = {kinds: _call_of(kinds, op) for kinds, op in OPS.items()}


def without_identities(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """``kinds`` without the layers that do nothing."""
    return tuple(kind for kind in kinds if kind is not LayerKind.IDENTITY)


def run(
    steps: Sequence[Step],
    x: Tensor,
    residual: Tensor | None,
    projection: nn.Module | None,
    precision: str | None,
    like: Tensor | None,
    emit_statistics: bool,
) -> Tensor:
    """Run ``steps`` on ``x``: as one op if they match one and no hook observes them.

    Args:
        steps: modules, and functions by their kinds.
        x: the input of the first step.
        residual: what a step of the kind RESIDUAL adds.
        projection: a 1x1 convolution, whose result on the residual is added; or None.
        precision: of a convolution; None is the one in force.
        like: None leaves the memory format of the result open; else it is that of PyTorch's
            result, had the layers before these been computed from ``like``.
        emit_statistics: whether a normalisation reads the result.
    """
    if not (all_are_observed() or _are_observed(steps, projection)):
        y = fused(steps, x, residual, precision, like, projection, emit_statistics)
        if y is not None:
            return y
    if projection is not None:
        residual = projection(residual)
    for step in steps:
        x = step(x) if isinstance(step, nn.Module) else _call_function(*step, x, residual)
    if like is None:
        return x
    conv = next((s for s in steps if isinstance(s, (nn.Conv2d, nn.ConvTranspose2d))), None)
    return to_layout_of(x, like, conv)


def _are_observed(steps: Sequence[Step], projection: nn.Module | None) -> bool:
    """Whether one of the layers has hooks."""
    for step in steps:
        if type(step) is not tuple and is_observed(step):  # type: ignore[arg-type]
            return True
    return projection is not None and is_observed(projection)


def fused(
    steps: Sequence[Step],
    x: object,
    residual: object,
    precision: str | None,
    like: Tensor | None,
    projection: nn.Module | None = None,
    emit_statistics: bool = False,
) -> Tensor | None:
    """The result of ``steps`` by one op; None where no op takes them as they are now."""
    kinds = tuple([match_layer(step) for step in steps])
    if LayerKind.IDENTITY in kinds:
        pairs = zip(steps, kinds, strict=True)
        steps = [step for step, kind in pairs if kind is not LayerKind.IDENTITY]
        kinds = without_identities(kinds)
    if kinds not in _CALLS or not is_supported_input(x):
        return None
    op, constants, position = _CALLS[kinds]
    options, shape = dict(constants), x.shape
    normalises = kinds[0] is LayerKind.GROUP_NORM
    if normalises:
        norm: Any = steps[0]
        scale, shift = norm.weight, norm.bias
        # F.group_norm raises for one value per group.
        fits = len(shape) >= 2 and shape[1] == norm.num_channels and x.numel() != norm.num_groups
        if not (fits and is_compatible(scale, x) and is_compatible(shift, x)):
            return None
        if op == "group_norm_silu":
            y = ops.group_norm_silu(x, scale, shift, norm.num_groups, eps=norm.eps, **options)
            return y if like is None else match_memory_format(y, like)
        options["norm"] = ops.NormPrologue(scale, shift, norm.num_groups, norm.eps)
    conv: Any = steps[position]
    weight, bias = conv.weight, conv.bias
    if not (_is_valid_shape(shape, conv) and is_compatible(weight, x)):
        return None
    if not (bias is None or is_compatible(bias, x)):
        return None
    if kinds[-1] is LayerKind.LEAKY_RELU:
        last: Any = steps[-1]
        options["negative_slope"] = last[1] if isinstance(last, tuple) else last.negative_slope
    if LayerKind.RESIDUAL in kinds:
        channels = conv.out_channels
        if projection is not None:
            if not _is_projection(projection, conv, x):
                return None
            channels = projection.in_channels
        if not is_compatible(residual, x) or residual.shape != (shape[0], channels, *shape[2:]):
            return None
        options["residual"] = residual
    options["precision"] = precision
    compiling = torch.compiler.is_compiling()
    statistics = statistics_of(x) if normalises and not compiling else None
    emits = emit_statistics and not compiling
    if projection is not None:
        options["projection"] = projection.weight, projection.bias
    gains = emits or statistics is not None or projection is not None
    if gains and op in CHAINED and "activation" not in options:
        options |= {"statistics": statistics, "emit_statistics": emits}
        y, statistics = chained_conv(op, x, weight, bias, **options)
    else:
        y, statistics = getattr(ops, op)(x, weight, bias, **options), None
    y = y if like is None else match_memory_format(y, like, weight)
    return attach_statistics(y, statistics)


def _is_projection(projection: Any, conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the op takes ``projection`` beside ``conv``."""
    tensors = [projection.weight, *([] if projection.bias is None else [projection.bias])]
    fits = match_layer(projection) is LayerKind.CONV1X1
    fits = fits and projection.out_channels == conv.out_channels
    return fits and all(is_compatible(tensor, x) for tensor in tensors)


def _is_valid_shape(shape: torch.Size, conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    if len(shape) != 4 or shape[1] != conv.in_channels:
        return False
    smallest = 2 if conv.stride == (2, 2) and isinstance(conv, nn.Conv2d) else 1
    return shape[2] >= smallest and shape[3] >= smallest


# The functions as they were traced: another one in their place may call these.
_silu, _relu, _leaky_relu, _interpolate, _pad = F.silu, F.relu, F.leaky_relu, F.interpolate, F.pad


def _call_function(kind: LayerKind, slope: float, x: Tensor, residual: Tensor | None) -> Tensor:
    if kind is LayerKind.SILU:
        return _silu(x)
    if kind is LayerKind.RELU:
        return _relu(x)
    if kind is LayerKind.LEAKY_RELU:
        return _leaky_relu(x, slope)
    if kind is LayerKind.UPSAMPLE:
        return _interpolate(x, scale_factor=2.0, mode="nearest")
    if kind is LayerKind.PAD:
        return _pad(x, ASYMMETRIC)
    if kind is LayerKind.RESIDUAL:
        assert residual is not None
        return x + residual
    assert kind is LayerKind.IDENTITY  # a division by 1
    return x
