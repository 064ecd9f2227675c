"""The convolution ops as calls of the engine, by name; explanations of calls as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaekernels.backends.triton.conv.autotune_table import CUDNN, DIRECTIONS
from vaekernels.backends.triton.conv.forms import (
    DOWN3X3,
    DOWN4X4,
    SAME,
    UP4X4,
    UPSAMPLE,
    Form,
    adjoint,
)
from vaekernels.backends.triton.conv.forward_backward import ConvCall
from vaekernels.backends.triton.conv.launch import product_tile
from vaekernels.backends.triton.conv.padded_images import padded_depth
from vaekernels.backends.triton.conv.tile_heuristics import (
    GradientTile,
    Tile,
    factors_of,
    gradient_tile_of,
)

FORMS = {
    "conv3x3": SAME,
    "upsample_conv3x3": UPSAMPLE,
    "downsample_conv4x4": DOWN4X4,
    "conv_transpose4x4": UP4X4,
}


def form_of(op: str, padding: str | None) -> Form:
    """Form of an op; ``padding`` applies to downsample_conv3x3 only."""
    return DOWN3X3[padding or ""] if op == "downsample_conv3x3" else FORMS[op]


def output_size(op: str, padding: str | None, height: int, width: int) -> tuple[int, int]:
    """Height and width of an op's result."""
    form, odd = form_of(op, padding), 1 if padding == "symmetric" else 0
    down, up = form.stride, form.phases
    return up * ((height + odd) // down), up * ((width + odd) // down)


def explain(op: str, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and reason of the algorithm of each of ``autotune_table.DIRECTIONS``.

    Args:
        op: a convolution.
        arguments: of it or of chained_conv, by their names in the schema; their numbers are not
            read.
    """
    x, weight, padding = arguments["x"], arguments["weight"], arguments.get("padding")
    call = ConvCall(
        *(op, form_of(op, padding), x, weight, None, None, 0.0, arguments["precision"]),
        residual=arguments.get("residual"),
        projection=arguments.get("projection"),
        affine=None if arguments.get("norm_weight") is None else (x, x),  # one is there
        output_dim=1 if op == "conv_transpose4x4" else 0,
    )
    size = output_size(op, padding, x.shape[2], x.shape[3])
    suffix = " tf32" if factors_of(weight.dtype, call.precision) == "tf32" else ""
    algorithms = []
    for direction in DIRECTIONS:
        statistics = direction == "forward" and arguments.get("emit_statistics", False)
        choice = call.choice(direction, size, statistics)
        if choice.algorithm == CUDNN:
            algorithms.append((CUDNN + suffix, choice.reason))
            continue
        tile = choice.tile or _tile(call, direction, size, statistics)
        sides = (
            (tile.inputs, tile.outputs, tile.rows)
            if isinstance(tile, GradientTile)
            else (tile.rows, tile.columns, tile.depth)
        )
        algorithms.append((f"tap-GEMM {'x'.join(map(str, sides))}{suffix}", choice.reason))
    return algorithms


def _tile(
    call: ConvCall, direction: str, size: tuple[int, int], statistics: bool
) -> Tile | GradientTile:
    """Tile that tile_heuristics.py selects."""
    inputs, outputs = (call.weight.shape[dim] for dim in (1 - call.output_dim, call.output_dim))
    x, weight, form = call.x, call.weight, call.form
    if direction == "weight":
        if form.phases > 1:  # then it is taken from y to x
            inputs, outputs = outputs, inputs
        factors = factors_of(weight.dtype, call.precision)
        return gradient_tile_of(factors, padded_depth(inputs), padded_depth(outputs))
    samples = (x.shape[2], x.shape[3])
    if direction == "input":
        form, inputs, outputs, samples, size = adjoint(form), outputs, inputs, size, samples
    rows = x.shape[0]
    for sample, result in zip(samples, size, strict=True):
        rows *= form.pitch(sample, result)
    fused = statistics or (direction == "forward" and call.residual is not None)
    depth, precision = padded_depth(inputs), call.precision
    return product_tile(form, rows, depth, outputs, weight, precision, fused)
