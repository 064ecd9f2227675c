"""What every latent op shares: rows cut into tiles, operands, partial sums, launches.

A tensor (B, ...) is B rows of ``extent`` elements. One program takes a tile of ROWS rows by
COLUMNS columns: several short rows, or one segment of a long row, so that a batch of one
still fills the chip. A tile's shape depends on ``extent`` alone; sums over segments are
merged in a fixed order without atomics. A row's sum is therefore the same bits in every run
and in every batch.

An operand is rows of contiguous elements (pointer and row stride) or, where its stride is
None, one number (pointer, or the float itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import INTERPRETED
from vaekernels.backends.triton.launch_grid import (
    cdiv,
    next_power_of_2,
    run,
    written_dtype,
)

TILE = 2048
MERGE_BLOCK = 256


@triton.jit
def tile_position(
    batch,
    extent,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """This program's rows (ROWS, 1) and columns (1, COLUMNS), in int64, and which exist."""
    program = tl.program_id(0)
    row = (program // segments).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (program % segments).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return row, column, (row < batch) & (column < extent)


@triton.jit
def load_operand(operand, stride, row, column, mask, COMPUTE: tl.constexpr):
    """The operand's tile, or its one number as a scalar, in the dtype of the computation."""
    if stride is None:
        value = operand
        if value.dtype.is_ptr():
            value = tl.load(value)
    else:
        value = tl.load(operand + row * stride + column, mask=mask, other=0.0)
    return value.to(COMPUTE)


@triton.jit
def load_row(operand, stride, row, batch, COMPUTE: tl.constexpr):
    """One number per row, (ROWS, 1)."""
    return tl.load(operand + row * stride, mask=row < batch, other=0.0).to(COMPUTE)


@triton.jit
def store_row_sum(
    partial,
    value,
    row,
    mask,
    batch,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum the tile's rows into ``partial``, (B, segments)."""
    zero = tl.zeros([ROWS, COLUMNS], value.dtype)
    sums = tl.sum(tl.where(mask, value + zero, zero), 1, keep_dims=True)
    tl.store(partial + row * segments + tl.program_id(0) % segments, sums, mask=row < batch)


@triton.jit
def store_gradient(
    out,
    stride,
    value,
    row,
    column,
    mask,
    batch,
    segments,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write a gradient: nowhere (None), per element, or summed where the operand is a number."""
    if out is not None:
        if stride is None:
            store_row_sum(out, value, row, mask, batch, segments, ROWS, COLUMNS)
        else:
            tl.store(out + row * stride + column, value, mask=mask)


@triton.jit
def merge_segments_kernel(
    partial,  # (B, segments): sums over a row's segments
    total,  # (B,): out, sums over the rows
    segments,
    BLOCK: tl.constexpr,
):
    """Second, small reduction of long rows.

    Equation: total_b = sum_s partial_bs.
    Grid: one program per row.
    Numerics: float64, in an order fixed by ``segments``; one rounding at the end.
    Saved for backward: nothing.
    Paper: none.
    """
    row = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK], tl.float64)
    done = 0
    while done < segments:
        sums += tl.load(partial + row * segments + index, mask=index < segments, other=0.0)
        index += BLOCK
        done += BLOCK
    tl.store(total + row, tl.sum(sums, 0))


def tile_shape(extent: int) -> tuple[int, int]:
    """ROWS and COLUMNS for rows of ``extent`` elements, whatever the batch."""
    columns = min(TILE, max(16, next_power_of_2(extent)))
    return TILE // columns, columns


@dataclass(frozen=True)
class Tiling:
    """How ``batch`` rows of ``extent`` elements are cut into tiles."""

    batch: int
    extent: int
    rows: int
    columns: int

    @classmethod
    def of(cls, tensor: Tensor) -> Tiling:
        batch = tensor.shape[0]
        extent = tensor.numel() // batch if batch else 0
        return cls(batch, extent, *tile_shape(extent))

    @property
    def segments(self) -> int:
        return cdiv(self.extent, self.columns)

    @property
    def programs(self) -> int:
        return cdiv(self.batch, self.rows) * self.segments

    def partial(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Memory for one sum per row and segment, (B, segments) laid out flat."""
        return torch.empty(self.batch * self.segments, dtype=dtype, device=like.device)

    def merge(self, partial: Tensor) -> Tensor:
        """(B, segments) -> (B,)."""
        if self.segments == 1:
            return partial
        total = partial.new_empty(self.batch)
        run(
            merge_segments_kernel,
            self.batch,
            partial,
            partial,
            total,
            self.segments,
            BLOCK=MERGE_BLOCK,
            warps=1,
        )
        return total


@dataclass(frozen=True)
class Operand:
    """A tensor as kernels take it: rows with a stride, or one number (stride None)."""

    argument: Tensor | float
    stride: int | None

    @classmethod
    def rows(cls, tensor: Tensor) -> Operand:
        """Rows of contiguous elements; copies only if the layout has none."""
        tensor = tensor if has_contiguous_rows(tensor) else tensor.contiguous()
        return cls(tensor, tensor.stride(0))

    @classmethod
    def of(cls, tensor: Tensor, like: Tensor, dtype: torch.dtype) -> Operand:
        """``tensor`` beside ``like``, for a computation in ``dtype``."""
        if tensor.device != like.device:
            # One number in host memory: read without a sync, and passed by value. A kernel's
            # float argument is a float32, and in the interpreter not a Triton value.
            number = float(tensor)
            if dtype == torch.float32 and not INTERPRETED:
                return cls(number, None)
            return cls(torch.full((), number, dtype=dtype, device=like.device), None)
        if not any(tensor.stride()):
            return cls(tensor, None)
        return cls.rows(tensor)


def has_contiguous_rows(tensor: Tensor) -> bool:
    """Whether the elements of every ``tensor[b]`` lie one after another, row-major."""
    # The first test needs no view, which would take longer than all other work on the host.
    return tensor.is_contiguous() or tensor.numel() == 0 or tensor[0].is_contiguous()


class RowOutput:
    """A result of any strides, which kernels write as contiguous rows."""

    def __init__(self, result: Tensor) -> None:
        dtype = written_dtype(result.dtype)
        self.result = result
        self.argument = result
        if dtype != result.dtype or not has_contiguous_rows(result):
            self.argument = result.new_empty(result.shape, dtype=dtype)
        self.stride: int | None = self.argument.stride(0)

    def finish(self) -> Tensor:
        if self.argument is not self.result:
            self.result.copy_(self.argument)
        return self.result


class NumberOutput:
    """The gradient of a single number: partial sums, then their sum in float64.

    One launch has one shape, and with it one order of summation: deterministic.
    """

    stride: int | None = None

    def __init__(self, tensor: Tensor, tiling: Tiling, like: Tensor, dtype: torch.dtype) -> None:
        self.tensor = tensor
        self.argument: Tensor = tiling.partial(like, dtype)

    def finish(self) -> Tensor:
        return self.argument.sum(dtype=torch.float64).to(self.tensor)


class NoOutput:
    """A gradient that is not needed."""

    argument = None
    stride: int | None = None

    def __init__(self, like: Tensor) -> None:
        self.like = like

    def finish(self) -> Tensor:
        return self.like.new_empty(0)


def gradient_outputs(
    inputs: Sequence[Tensor], mask: Sequence[bool], tiling: Tiling, dtype: torch.dtype
) -> list[RowOutput | NumberOutput | NoOutput]:
    """Where a backward kernel writes the gradient of each input."""
    outputs: list[RowOutput | NumberOutput | NoOutput] = []
    for tensor, wanted in zip(inputs, mask, strict=True):
        if not wanted:
            outputs.append(NoOutput(inputs[0]))
        elif tensor.ndim == 0:
            outputs.append(NumberOutput(tensor, tiling, inputs[0], dtype))
        else:
            outputs.append(RowOutput(torch.empty_like(tensor)))
    return outputs


def zero_gradients(inputs: Sequence[Tensor], mask: Sequence[bool]) -> tuple[Tensor, ...]:
    """What a backward returns when no gradient comes in, or for empty inputs."""
    return tuple(
        torch.zeros_like(tensor) if wanted else inputs[0].new_empty(0)
        for tensor, wanted in zip(inputs, mask, strict=True)
    )


def launch(kernel: Any, tiling: Tiling, like: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run ``kernel`` on every tile; the sizes follow the arguments."""
    run(
        kernel,
        tiling.programs,
        like,
        *arguments,
        tiling.batch,
        tiling.extent,
        tiling.segments,
        ROWS=tiling.rows,
        COLUMNS=tiling.columns,
        **constants,
    )
