"""Tensors to kernels: a form's result, and the gradient of its filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from vaekernels.backends.triton.conv.filter_gradient import filter_gradient_kernel
from vaekernels.backends.triton.conv.filters import pack, unpack
from vaekernels.backends.triton.conv.forms import POINT, Form
from vaekernels.backends.triton.conv.padded_images import Padded, padded_depth
from vaekernels.backends.triton.conv.tap_gemm import tap_gemm_kernel
from vaekernels.backends.triton.conv.tile_heuristics import (
    CHUNK,
    GradientTile,
    Key,
    Tile,
    bucket,
    divisor,
    factors_of,
    gradient_tile_of,
    input_precision,
    splits_of,
    tile_of,
)
from vaekernels.backends.triton.launch_grid import cdiv, run, written_dtype


@dataclass(frozen=True)
class Epilogue:
    """What is done to the products: ``activation(product + bias + residual)``.

    Attributes:
        bias: (channels,), or None.
        residual: of the result's height and width, any strides, or None.
        projection: (channels, residual's channels, 1, 1): its product with the residual is added
            in place of the residual; or None.
        activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``.
        slope: of leaky_relu.
        statistics: also count, mean and M2 of each tile's channels.
    """

    bias: Tensor | None = None
    residual: Tensor | None = None
    projection: Tensor | None = None
    activation: str | None = None
    slope: float = 0.0
    statistics: bool = False


def convolve(
    form: Form,
    x: Padded,
    weight: Tensor,
    output_dim: int,
    size: tuple[int, int],
    precision: str,
    epilogue: Epilogue,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The result of a form, channels_last, and its statistics.

    Args:
        form: from the images of x to the result's.
        x: ``pad`` of them.
        weight: in float16, bfloat16 or float32.
        output_dim: the dimension of weight with the result's channels.
        size: height and width of the result.
        precision: a tier.
        epilogue: after the products.
        tile: None takes that of tile_heuristics.py; its depth is cut to what divides x's.

    Returns:
        The result, and (N, tiles, 3, channels) statistics or None.
    """
    channels = weight.shape[output_dim]
    shape = (x.batch, channels, *size)
    y = torch.empty(
        shape,
        dtype=written_dtype(weight.dtype),
        device=weight.device,
        memory_format=torch.channels_last,
    )
    phases = form.phases**2
    fused = epilogue.residual is not None or epilogue.statistics
    rows = x.batch * x.image_rows
    tile = tile or product_tile(form, rows, x.depth, channels, weight, precision, fused)
    tile = replace(tile, depth=divisor(x.depth, tile.depth))
    columns = -(-channels // tile.columns) * tile.columns
    matrix = pack(weight, form, output_dim, columns, x.depth, precision)
    # Statistics are those of one image: no tile may have rows of two.
    unit_rows = x.image_rows if epilogue.statistics else rows
    tiles = cdiv(unit_rows, tile.rows) * (x.batch if epilogue.statistics else 1)
    statistics = None
    if epilogue.statistics:
        statistics = y.new_empty((tiles * phases, 3, channels), dtype=torch.float32)
    residual, projection, projected = epilogue.residual, None, x.depth
    if epilogue.projection is not None:
        projected = padded_depth(epilogue.projection.shape[1])
        projection = pack(epilogue.projection, POINT, 0, columns, projected, precision)
    projected_depth = divisor(projected, tile.depth)
    described = uses_descriptors(weight)
    first, last = form.windows[0], form.windows[-1]
    run(
        tap_gemm_kernel,
        tiles * phases * (columns // tile.columns),
        weight,
        _matrix(x.rows, (tile.rows, tile.depth), described),
        _matrix(matrix, (tile.columns, tile.depth), described),
        *(vector(epilogue.bias), residual),
        _matrix(projection, (tile.columns, projected_depth), described),
        *(y, statistics),
        *(x.lead, unit_rows, *x.cells, x.depth, columns, channels, *size),
        *(residual.stride() if residual is not None else (0, 0, 0, 0)),
        *(residual.shape[1] if residual is not None else channels, projected),
        epilogue.slope,
        STRIDE=form.stride,
        PHASES=form.phases,
        TAPS=form.taps,
        START_0=first.start,
        TAPS_0=len(first.taps),
        START_1=last.start,
        TAPS_1=len(last.taps),
        ACTIVATION=epilogue.activation,
        PRECISION=input_precision(weight.dtype, precision),
        ROUNDED=weight.element_size() == 2,
        DESCRIPTORS=described,
        ROWS=tile.rows,
        COLUMNS=tile.columns,
        DEPTH=tile.depth,
        PROJECTION_DEPTH=projected_depth,
        warps=tile.warps,
        num_stages=tile.stages,
    )
    if statistics is not None:
        statistics = statistics.view(x.batch, -1, 3, channels)
    return y.to(weight.dtype), statistics


def filter_gradient(
    form: Form,
    x: Padded,
    v: Padded,
    weight: Tensor,
    output_dim: int,
    precision: str,
    tile: GradientTile | None = None,
) -> Tensor:
    """The gradient of the filters of ``form``, which has one phase.

    Args:
        form: from the images of x to those of v.
        x: ``pad`` of its input.
        v: its output's gradient in the cells of x, a sample each.
        weight: gives shape, strides and dtype.
        output_dim: the dimension of weight with the channels of v.
        precision: a tier.
        tile: None takes that of tile_heuristics.py.
    """
    (window,) = form.windows
    samples, rows = form.taps**2, x.batch * x.image_rows
    tile = tile or gradient_tile_of(factors_of(weight.dtype, precision), x.depth, v.depth)
    programs = samples * cdiv(x.depth, tile.inputs) * cdiv(v.depth, tile.outputs)
    split_rows = cdiv(cdiv(rows, splits_of(rows, programs)), tile.rows) * tile.rows
    splits = cdiv(rows, split_rows)
    shape = (splits, samples, x.depth, v.depth)
    partial = torch.empty(shape, dtype=torch.float32, device=weight.device)
    described = uses_descriptors(weight)
    run(
        filter_gradient_kernel,
        splits * programs,
        weight,
        _matrix(x.rows, (tile.rows, tile.inputs), described),
        _matrix(v.rows, (tile.rows, tile.outputs), described),
        *(partial, x.lead, v.lead, rows, split_rows, x.cells[1], x.depth, v.depth),
        STRIDE=form.stride,
        TAPS=form.taps,
        START=window.start,
        PRECISION=input_precision(weight.dtype, precision),
        DESCRIPTORS=described,
        CHUNK=CHUNK,
        ROWS=tile.rows,
        INPUTS=tile.inputs,
        OUTPUTS=tile.outputs,
        warps=tile.warps,
        num_stages=tile.stages,
    )
    return unpack(partial, weight, form, output_dim)


def uses_descriptors(like: Tensor) -> bool:
    """Whether the device copies tiles by descriptor (TMA, since sm_90)."""
    return like.is_cuda and torch.cuda.get_device_capability(like.device) >= (9, 0)


def _matrix(matrix: Tensor | None, block: tuple[int, int], described: bool) -> Any:
    if matrix is None or not described:
        return matrix
    return TensorDescriptor.from_tensor(matrix, list(block))


def vector(numbers: Tensor | None) -> Tensor | None:
    """``numbers`` side by side in memory."""
    return None if numbers is None else numbers.contiguous()


def product_tile(
    form: Form, rows: int, depth: int, channels: int, weight: Tensor, precision: str, fused: bool
) -> Tile:
    """The tile of the rule in tile_heuristics.py.

    Args:
        form: of the product.
        rows: cells of all images.
        depth: of a sample.
        channels: of the result.
        weight: gives device and dtype.
        precision: a tier.
        fused: a residual or statistics are there.
    """
    key = Key(
        architecture=architecture_of(weight),
        factors=factors_of(weight.dtype, precision),
        taps=form.taps**2,
        inputs=depth,
        outputs=channels,
        rows=bucket(rows * form.phases**2),
        epilogue=fused,
    )
    return tile_of(key, _multiprocessors(weight))


def architecture_of(like: Tensor) -> int:
    """Of the device: 90 for sm_90; 0 in the interpreter."""
    if not like.is_cuda:
        return 0
    major, minor = torch.cuda.get_device_capability(like.device)
    return 10 * major + minor


def _multiprocessors(like: Tensor) -> int:
    """Of the device; one in the interpreter, which runs programs one after the other."""
    if not like.is_cuda:
        return 1
    return torch.cuda.get_device_properties(like.device).multi_processor_count
