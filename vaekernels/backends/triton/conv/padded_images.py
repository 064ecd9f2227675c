"""Images between borders of zeros, in which every tap is a constant shift of rows.

A line of an image is cut into cells of S x S samples (S is the form's stride), which lie side by
side as channels. The cells of all images are the rows of one matrix: so the samples that tap
(k, l) meets are the rows themselves, shifted by a constant. A border of zeros at the end of each
line and of each image serves the next one too, as its beginning; ``Form.pitch`` has its width. It
makes the matrix larger by 0.4% (512 px) to 6% (32 px).

The border is written with the rest, by one kernel, which also normalises, activates, and reads
any strides. So a buffer is scratch without a state: PyTorch's allocator hands the same memory to
the next layer, per stream, and in a graph's capture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.conv.forms import Form
from vaekernels.backends.triton.conv.tf32 import round_to_tf32
from vaekernels.backends.triton.conv.tile_heuristics import factors_of
from vaekernels.backends.triton.launch_grid import cdiv, next_power_of_2, run, written_dtype
from vaekernels.backends.triton.silu import silu

CHANNEL_MULTIPLE = 16  # of a row's depth: 32 bytes or more, and the least of a product
# Of the largest tile: it may reach so far beyond the last row, and beyond a row into the next ones.
TILE_ROWS, TILE_CHANNELS = 128, 256
BLOCK = 2048  # elements of a program


@dataclass(frozen=True)
class Padded:
    """A batch of images as the matrix of its cells.

    Attributes:
        rows: the matrix, (rows, stride * stride * depth), its borders included.
        lead: rows of zeros before the first image.
        batch: images.
        cells: rows of an image, from one line to the next: (lines, cells of a line).
        depth: channels of a sample, zeros up to a multiple of 16.
    """

    rows: Tensor
    lead: int
    batch: int
    cells: tuple[int, int]
    depth: int

    @property
    def image_rows(self) -> int:
        """Of one image."""
        return self.cells[0] * self.cells[1]


def padded_depth(channels: int) -> int:
    """``channels`` with the zeros that make them rows of a product."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


@triton.jit(
    do_not_specialize=["batch", "height", "width", "lead", "lines", "all_lines", "line_cells"]
)
def pad_kernel(
    x,  # (N, C, H, W), any strides
    scale,  # (N, C) float32, or None
    shift,  # (N, C) float32, or None
    padded,  # (rows, STRIDE^2 * depth): out
    batch,
    channels,
    height,
    width,
    x_batch,
    x_channel,
    x_line,
    x_pixel,
    lead,  # lines of cells before the first image
    lines,  # from one image to the next
    all_lines,  # of the matrix
    line_cells,
    depth,
    STRIDE: tl.constexpr,
    LINES: tl.constexpr,
    CELLS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROUNDED: tl.constexpr,
    TF32: tl.constexpr,
):
    """Images into the padded matrix.

    Equation: x, or silu(x * scale + shift) = silu(group_norm(x)); 0 outside of the image.
    Grid: one program per LINES lines of cells, CELLS of each, sample of a cell, CHANNELS of it.
    Numerics: float32, one rounding, which is to 10 bits of mantissa if TF32.
    Saved for backward: nothing.
    Paper: none.
    """
    channel_blocks = tl.cdiv(depth, CHANNELS)
    program = tl.program_id(0)
    channel = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    sample = program % (STRIDE * STRIDE)
    program = program // (STRIDE * STRIDE)
    line_blocks = tl.cdiv(line_cells, CELLS)
    cell = (program % line_blocks) * CELLS + tl.arange(0, CELLS)[None, :, None]
    line = (program // line_blocks) * LINES + tl.arange(0, LINES)[:, None, None]
    channel = channel[None, None, :]

    image_line = line - lead
    image = image_line // lines
    y = (image_line % lines) * STRIDE + sample // STRIDE
    column = cell * STRIDE + sample % STRIDE
    known = (image_line >= 0) & (image < batch) & (channel < channels)
    exists = known & (y < height) & (column < width)
    place = image.to(tl.int64) * x_batch + y.to(tl.int64) * x_line
    place = place + column.to(tl.int64) * x_pixel + channel.to(tl.int64) * x_channel
    value = tl.load(x + place, mask=exists, other=0.0).to(tl.float32)
    if scale is not None:
        factor = image.to(tl.int64) * channels + channel
        value = value * tl.load(scale + factor, mask=known, other=0.0)
        value += tl.load(shift + factor, mask=known, other=0.0)
        value = tl.where(exists, silu(value, ROUNDED), 0.0)
    place = (line.to(tl.int64) * line_cells + cell) * (STRIDE * STRIDE * depth)
    place = place + sample * depth + channel
    stored = (line < all_lines) & (cell < line_cells) & (channel < depth)
    tl.store(padded + place, round_to_tf32(value, TF32), mask=stored)


def pad(
    x: Tensor,
    form: Form,
    outputs: tuple[int, int],
    precision: str,
    affine: tuple[Tensor, Tensor] | None = None,
) -> Padded:
    """``x`` as ``form`` reads it for ``outputs`` (height, width).

    Args:
        x: (N, C, H, W), any strides.
        form: from x to the outputs.
        outputs: their height and width.
        precision: a tier, which says what a product rounds its factors to.
        affine: scale and shift, each (N, C) float32: then it is ``silu(x * scale + shift)``.
    """
    height, width = x.shape[2:]
    cells = form.pitch(height, outputs[0]), form.pitch(width, outputs[1])
    return _pad(x, form.stride, cells, form.reach, precision, affine)


def pad_like(
    x: Tensor,
    cells: tuple[int, int],
    precision: str,
    affine: tuple[Tensor, Tensor] | None = None,
) -> Padded:
    """``x``, a sample per cell, in the cells of another matrix and without a lead."""
    return _pad(x, 1, cells, (0, 0), precision, affine)


def _pad(
    x: Tensor,
    stride: int,
    cells: tuple[int, int],
    reach: tuple[int, int],
    precision: str,
    affine: tuple[Tensor, Tensor] | None,
) -> Padded:
    batch, channels, height, width = x.shape
    lines, line_cells = cells
    depth = padded_depth(channels)
    before = (1 - reach[0]) if reach[0] < 0 else 0
    beyond = TILE_ROWS + TILE_CHANNELS // CHANNEL_MULTIPLE + reach[1] * (line_cells + 1)
    after = cdiv(beyond, line_cells)
    all_lines = before + batch * lines + after
    if all_lines * line_cells >= 2**31:
        raise ValueError(
            f"the triton convolutions take batches of less than 2**31 pixels; got {tuple(x.shape)}"
        )
    shape = (all_lines * line_cells, stride * stride * depth)
    rows = torch.empty(shape, dtype=written_dtype(x.dtype), device=x.device)
    channel_block = min(64, next_power_of_2(depth))
    cell_block = min(BLOCK // channel_block, next_power_of_2(line_cells))
    line_block = BLOCK // channel_block // cell_block
    blocks = cdiv(line_cells, cell_block) * cdiv(depth, channel_block)
    scale, shift = (None, None) if affine is None else affine
    run(
        pad_kernel,
        cdiv(all_lines, line_block) * stride * stride * blocks,
        x,
        *(x, scale, shift, rows),
        *(batch, channels, height, width, *x.stride()),
        *(before, lines, all_lines, line_cells, depth),
        STRIDE=stride,
        LINES=line_block,
        CELLS=cell_block,
        CHANNELS=channel_block,
        ROUNDED=x.element_size() == 2,
        TF32=factors_of(x.dtype, precision) == "tf32",
    )
    return Padded(rows, before * line_cells, batch, cells, depth)
