"""Running a chain of layers as one op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels import ops
from vaekernels.integrations.accelerate.memory_format import (
    is_compatible,
    is_supported_input,
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


@dataclass(frozen=True)
class _Fusion:
    """The op that computes a chain, and where its arguments come from.

    Attributes:
        op: its name.
        options: of the op, where they follow from the kinds alone.
        norm: the position of the normalisation; None without one.
        conv: that of the convolution.
        leaky_relu: that of a leaky_relu.
        adds_residual: whether a residual is added.
        chainable: whether ``chained_conv`` computes it too.
    """

    op: str
    options: Mapping[str, Any]
    norm: int | None
    conv: int | None
    leaky_relu: int | None
    adds_residual: bool
    chainable: bool


def _fusion(kinds: tuple[LayerKind, ...], op: str) -> _Fusion:
    positions = {kind: i for i, kind in enumerate(kinds)}
    conv = next((i for i, kind in enumerate(kinds) if kind in CONVOLUTIONS), None)
    options: dict[str, Any] = {}
    if op == "group_norm_silu":
        options["activation"] = "silu" if LayerKind.SILU in kinds else None
    elif kinds[-1] in _ACTIVATIONS:
        options["activation"] = kinds[-1].value
    if op == "downsample_conv3x3":
        options["padding"] = "asymmetric" if LayerKind.PAD in kinds else "symmetric"
    return _Fusion(
        op,
        options,
        positions.get(LayerKind.GROUP_NORM),
        conv,
        positions.get(LayerKind.LEAKY_RELU),
        LayerKind.RESIDUAL in kinds,
        op in CHAINED and "activation" not in options,
    )


_FUSIONS = {kinds: _fusion(kinds, op) for kinds, op in OPS.items()}


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
    layers = [step for step in (*steps, projection) if isinstance(step, nn.Module)]
    if not (all_are_observed() or any(map(is_observed, layers))):
        y = fused(steps, x, residual, precision, like, projection, emit_statistics)
        if y is not None:
            return y
    if projection is not None:
        residual = projection(residual)
    for step in steps:
        x = step(x) if isinstance(step, nn.Module) else _call_function(*step, x, residual)
    if like is None:
        return x
    convs = [layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    return to_layout_of(x, like, *convs)


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
    fusion = _FUSIONS.get(kinds)
    if fusion is None or not is_supported_input(x):
        return None
    options = dict(fusion.options)
    if fusion.norm is not None:
        norm: Any = steps[fusion.norm]
        scale, shift = norm.weight, norm.bias
        # F.group_norm raises for one value per group.
        fits = x.ndim >= 2 and x.shape[1] == norm.num_channels and x.numel() != norm.num_groups
        if not (fits and is_compatible(scale, x) and is_compatible(shift, x)):
            return None
        if fusion.conv is None:
            y = ops.group_norm_silu(x, scale, shift, norm.num_groups, eps=norm.eps, **options)
            return y if like is None else to_layout_of(y, like)
        options["norm"] = ops.NormPrologue(scale, shift, norm.num_groups, norm.eps)
    assert fusion.conv is not None
    conv: Any = steps[fusion.conv]
    weight, bias = conv.weight, conv.bias
    if not (_has_valid_shape(x, conv) and is_compatible(weight, x)):
        return None
    if not (bias is None or is_compatible(bias, x)):
        return None
    if fusion.leaky_relu is not None:
        options["negative_slope"] = _negative_slope(steps[fusion.leaky_relu])
    if fusion.adds_residual:
        channels = conv.out_channels
        if projection is not None:
            if not _is_projection(projection, conv, x):
                return None
            channels = projection.in_channels
        if not is_compatible(residual, x) or residual.shape != (x.shape[0], channels, *x.shape[2:]):
            return None
        options["residual"] = residual
    options["precision"] = precision
    compiling = torch.compiler.is_compiling()
    statistics = None if compiling or fusion.norm is None else statistics_of(x)
    emits = emit_statistics and not compiling
    if projection is not None:
        options["projection"] = projection.weight, projection.bias
    if fusion.chainable and (emits or statistics is not None or projection is not None):
        y, statistics = chained_conv(
            fusion.op, x, weight, bias, statistics=statistics, asks=emits, **options
        )
        y = y if like is None else to_layout_of(y, like, conv)
        return attach_statistics(y, statistics)
    y = getattr(ops, fusion.op)(x, weight, bias, **options)
    return y if like is None else to_layout_of(y, like, conv)


def _is_projection(projection: Any, conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the op takes ``projection`` beside ``conv``."""
    tensors = [projection.weight, *([] if projection.bias is None else [projection.bias])]
    fits = match_layer(projection) is LayerKind.CONV1X1
    fits = fits and projection.out_channels == conv.out_channels
    return fits and all(is_compatible(tensor, x) for tensor in tensors)


def _has_valid_shape(x: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    if x.ndim != 4 or x.shape[1] != conv.in_channels:
        return False
    smallest = 2 if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2) else 1
    return x.shape[2] >= smallest and x.shape[3] >= smallest


def _negative_slope(step: Any) -> float:
    return step[1] if isinstance(step, tuple) else step.negative_slope


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
