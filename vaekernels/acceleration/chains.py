"""Running a chain of layers as one op, where it is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels import ops
from vaekernels.acceleration.layers import ASYMMETRIC, CONVOLUTIONS, Step, is_observed, part
from vaekernels.acceleration.layouts import laid_out_like, takes

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


def letters(steps: Sequence[Step]) -> str:
    """What ``steps`` are; a key of ``OPS`` where one op computes them."""
    return "".join([part(step)[0] for step in steps])


def run(
    steps: Sequence[Step],
    x: Tensor,
    residual: Tensor | None,
    precision: str | None,
    like: Tensor | None,
) -> Tensor:
    """Run ``steps`` on ``x``: as one op where they still are one and no hook wants to see them.

    Args:
        steps: layers, or functions by their letters.
        x: goes through all of them.
        residual: what the step "a" adds.
        precision: of a convolution; None is the one in force.
        like: None leaves the layout of the result open; else it is what PyTorch's would be, had
            the layers before them computed from ``like``.
    """
    if not any(isinstance(step, nn.Module) and is_observed(step) for step in steps):
        y = fused(steps, x, residual, precision, like)
        if y is not None:
            return y
    for step in steps:
        x = step(x) if isinstance(step, nn.Module) else _function(*step, x, residual)
    return x if like is None else laid_out_like(x, like, *map(_filter_of, steps))


def fused(
    steps: Sequence[Step],
    x: object,
    residual: object,
    precision: str | None,
    like: Tensor | None,
) -> Tensor | None:
    """The result of ``steps`` by one op; None where no op takes them as they are now."""
    op = OPS.get(letters(steps))
    if op is None or not takes(x):
        return None
    norm: Any = None
    conv: Any = None
    options: dict[str, Any] = {}
    for step in steps:
        letter, slope = part(step)
        if letter == "n":
            norm = step
        elif letter and letter in CONVOLUTIONS:
            conv = step
        elif letter == "p":
            options["padding"] = "asymmetric"
        elif letter == "a":
            options["residual"] = residual
        elif conv is not None and letter in _ACTIVATIONS:
            options["activation"] = _ACTIVATIONS[letter]
            options["negative_slope"] = slope
    if norm is not None and not _norm_takes(norm, x):
        return None
    if conv is None:
        activation = "silu" if len(letters(steps)) == 2 else None
        y = ops.group_norm_silu(
            x, norm.weight, norm.bias, norm.num_groups, eps=norm.eps, activation=activation
        )
        return y if like is None else laid_out_like(y, like)
    if not _convolution_takes(conv, x):
        return None
    if "residual" in options:
        shape = (x.shape[0], conv.out_channels, x.shape[2], x.shape[3])
        if not takes(residual) or residual.shape != shape:
            return None
    if norm is not None:
        options["norm"] = ops.NormPrologue(norm.weight, norm.bias, norm.num_groups, norm.eps)
    if op == "downsample_conv3x3":
        options.setdefault("padding", "symmetric")
    y = getattr(ops, op)(x, conv.weight, conv.bias, precision=precision, **options)
    return y if like is None else laid_out_like(y, like, conv.weight)


def _norm_takes(norm: nn.GroupNorm, x: Tensor) -> bool:
    # F.group_norm refuses one value per group: let it.
    channels = x.ndim >= 2 and x.shape[1] == norm.num_channels and x.numel() != norm.num_groups
    return channels and takes(norm.weight) and takes(norm.bias)


def _convolution_takes(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    smallest = 1 if conv.stride == (1, 1) or isinstance(conv, nn.ConvTranspose2d) else 2
    return (
        x.ndim == 4
        and x.shape[1] == conv.in_channels
        and min(x.shape[2:]) >= smallest
        and takes(conv.weight)
        and (conv.bias is None or takes(conv.bias))
    )


def _filter_of(step: Step) -> Tensor | None:
    return step.weight if isinstance(step, (nn.Conv2d, nn.ConvTranspose2d)) else None


def _function(letter: str, slope: float, x: Tensor, residual: Tensor | None) -> Tensor:
    if letter == "s":
        return F.silu(x)
    if letter == "r":
        return F.relu(x)
    if letter == "l":
        return F.leaky_relu(x, slope)
    if letter == "u":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    if letter == "p":
        return F.pad(x, ASYMMETRIC)
    assert letter == "a"
    assert residual is not None
    return x + residual
