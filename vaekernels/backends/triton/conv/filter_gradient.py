"""The filters' gradient: the tap-GEMM with the rows as depth."""

from __future__ import annotations

import triton
import triton.language as tl

from vaekernels.backends.triton.conv.tap_gemm import load_tile


@triton.jit(do_not_specialize=["x_lead", "v_lead", "rows", "split_rows", "line_cells"])
def filter_gradient_kernel(
    x,  # padded images, (rows, STRIDE^2 * depth); a pointer or a descriptor
    v,  # padded images in the same cells, one sample each, (rows, columns); likewise
    partial,  # (splits, TAPS^2, depth, columns) float32: out
    x_lead,  # rows before the first image
    v_lead,
    rows,  # of all images
    split_rows,  # of a split, a multiple of ROWS
    line_cells,
    depth,
    columns,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    START: tl.constexpr,
    PRECISION: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """The gradient of a form's filters, one output phase.

    Equation: partial[s, t, i, o] = sum over the rows r of split s of
        x[r + shift(t), i] v[r, o]; v is zero in the rows of the border.
    Grid: one program per split, sample t of the window, INPUTS by OUTPUTS channels. Those beyond
        the last are read from what follows, whatever it is, and not stored.
    Numerics: products summed in float32 over CHUNK rows, whose sums are added in float32: the
        matrix units round towards zero, which a long chain of theirs would show.
    Saved for backward: nothing.
    Paper: none; see tap_gemm.py.
    """
    output_tiles, input_tiles = tl.cdiv(columns, OUTPUTS), tl.cdiv(depth, INPUTS)
    program = tl.program_id(0)
    output = (program % output_tiles) * OUTPUTS
    program = program // output_tiles
    input = (program % input_tiles) * INPUTS
    program = program // input_tiles
    tap = program % (TAPS * TAPS)
    split = program // (TAPS * TAPS)

    at_y, at_x = START + tap // TAPS, START + tap % TAPS
    shift = (at_y >> (STRIDE - 1)) * line_cells + (at_x >> (STRIDE - 1))
    part = (at_y & (STRIDE - 1)) * STRIDE + (at_x & (STRIDE - 1))
    x_stride = STRIDE * STRIDE * depth
    row_index = tl.arange(0, ROWS)
    input_index, output_index = tl.arange(0, INPUTS), tl.arange(0, OUTPUTS)
    x_offsets = row_index[:, None] * x_stride + input_index[None, :]
    v_offsets = row_index[:, None] * columns + output_index[None, :]
    total = tl.zeros([INPUTS, OUTPUTS], tl.float32)
    end = tl.minimum(split * split_rows + split_rows, rows)
    for chunk in range(split * split_rows, end, CHUNK):
        chunk_total = tl.zeros([INPUTS, OUTPUTS], tl.float32)
        # The last rows of a tile may be those after the images: zeros.
        for row in tl.range(chunk, tl.minimum(chunk + CHUNK, end), ROWS):
            x_row, column = x_lead + shift + row, part * depth + input
            samples = load_tile(x, x_row, column, x_stride, x_offsets, DESCRIPTORS)
            gradients = load_tile(v, v_lead + row, output, columns, v_offsets, DESCRIPTORS)
            chunk_total = tl.dot(samples.T, gradients, chunk_total, input_precision=PRECISION)
        total += chunk_total
    input_index, output_index = input + input_index, output + output_index
    row = (split * (TAPS * TAPS) + tap).to(tl.int64) * depth + input_index
    inside = (input_index < depth)[:, None] & (output_index < columns)[None, :]
    tl.store(partial + row[:, None] * columns + output_index[None, :], total, mask=inside)
