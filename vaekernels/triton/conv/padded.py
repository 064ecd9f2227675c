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

from vaekernels.triton import INTERPRETED
from vaekernels.triton.conv.forms import Form
from vaekernels.triton.row_reduction import on_device_of

CHANNEL_MULTIPLE = 16  # of a row's depth: 32 bytes or more, and the least of a product
TILE_ROWS = 256  # of the largest tile: it may reach so far beyond the last row
BLOCK = 2048  # elements of a program
WARPS = 4


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


@triton.jit(do_not_specialize=["batch", "channels", "height", "width", "lead", "lines"])
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
    lines,  # of cells from one image to the next
    line_cells,
    depth,
    STRIDE: tl.constexpr,
    CELLS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Images into the padded matrix.

    Equation: x, or silu(x * scale + shift) = silu(group_norm(x)); 0 outside of the image.
    Grid: (line of cells and CELLS of it, sample of the cell and CHANNELS of it).
    Numerics: float32, one rounding.
    Saved for backward: nothing.
    Paper: none.
    """
    blocks = tl.cdiv(line_cells, CELLS)
    line = tl.program_id(0) // blocks
    cell = (tl.program_id(0) % blocks) * CELLS + tl.arange(0, CELLS)[:, None]
    channel_blocks = tl.cdiv(depth, CHANNELS)
    sample = tl.program_id(1) // channel_blocks
    channel = (tl.program_id(1) % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]

    image_line = line - lead
    image = image_line // lines
    y = (image_line % lines) * STRIDE + sample // STRIDE
    column = cell * STRIDE + sample % STRIDE
    # Of a line between images, and of those before and after all of them, no channel is there.
    present = tl.where((image_line >= 0) & (image < batch) & (y < height), channels, 0)
    exists = (column < width) & (channel < present)
    first = x + image.to(tl.int64) * x_batch + y.to(tl.int64) * x_line
    offset = column.to(tl.int64) * x_pixel + channel.to(tl.int64) * x_channel
    value = tl.load(first + offset, mask=exists, other=0.0).to(tl.float32)
    if scale is not None:
        factor = image.to(tl.int64) * channels + channel
        value = value * tl.load(scale + factor, mask=channel < present, other=0.0)
        value += tl.load(shift + factor, mask=channel < present, other=0.0)
        value = tl.where(exists, value / (1.0 + tl.exp(-value)), 0.0)
    row = line.to(tl.int64) * line_cells + cell
    offset = row * (STRIDE * STRIDE * depth) + sample * depth + channel
    tl.store(padded + offset, value, mask=(cell < line_cells) & (channel < depth))


def pad(
    x: Tensor, form: Form, outputs: tuple[int, int], affine: tuple[Tensor, Tensor] | None = None
) -> Padded:
    """``x`` as ``form`` reads it for ``outputs`` (height, width).

    Args:
        x: (N, C, H, W), any strides.
        form: from x to the outputs.
        outputs: their height and width.
        affine: scale and shift, each (N, C) float32: then it is ``silu(x * scale + shift)``.
    """
    height, width = x.shape[2:]
    cells = form.pitch(height, outputs[0]), form.pitch(width, outputs[1])
    return _pad(x, form.stride, cells, form.reach, affine)


def pad_like(
    x: Tensor, cells: tuple[int, int], affine: tuple[Tensor, Tensor] | None = None
) -> Padded:
    """``x``, a sample per cell, in the cells of another matrix and without a lead."""
    return _pad(x, 1, cells, (0, 0), affine)


def _pad(
    x: Tensor,
    stride: int,
    cells: tuple[int, int],
    reach: tuple[int, int],
    affine: tuple[Tensor, Tensor] | None,
) -> Padded:
    batch, channels, height, width = x.shape
    lines, line_cells = cells
    depth = -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
    before = (1 - reach[0]) if reach[0] < 0 else 0
    after = triton.cdiv(TILE_ROWS + reach[1] * (line_cells + 1), line_cells)
    all_lines = before + batch * lines + after
    if all_lines * line_cells >= 2**31:
        raise ValueError(
            f"the triton convolutions take batches of less than 2**31 pixels; got {tuple(x.shape)}"
        )
    shape = (all_lines * line_cells, stride * stride * depth)
    rows = torch.empty(shape, dtype=storage_dtype(x.dtype), device=x.device)
    channel_block = min(64, triton.next_power_of_2(depth))
    cell_block = min(BLOCK // channel_block, max(16, triton.next_power_of_2(line_cells)))
    grid = (
        all_lines * triton.cdiv(line_cells, cell_block),
        stride * stride * triton.cdiv(depth, channel_block),
    )
    scale, shift = (None, None) if affine is None else affine
    with on_device_of(x):
        pad_kernel[grid](
            *(x, scale, shift, rows),
            *(batch, channels, height, width, *x.stride()),
            *(before, lines, line_cells, depth),
            STRIDE=stride,
            CELLS=cell_block,
            CHANNELS=channel_block,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return Padded(rows, before * line_cells, batch, cells, depth)


def storage_dtype(dtype: torch.dtype) -> torch.dtype:
    """What kernels write where ``dtype`` is meant.

    The interpreter cuts a float32 off to bfloat16 instead of rounding it: there it stays one.
    """
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype
