"""The tap-GEMM: one kernel for every form, forward and input gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from vaekernels.backends.triton.conv.tf32 import round_to_tf32
from vaekernels.backends.triton.silu import silu


@triton.jit
def load_tile(matrix, row, column, stride, offsets, DESCRIPTORS: tl.constexpr):
    """A tile of ``matrix`` whose corner is (row, column): by its descriptor, or by pointers."""
    if DESCRIPTORS:
        tile = matrix.load([row, column])
    else:
        tile = tl.load(matrix + (row.to(tl.int64) * stride + column) + offsets)
    return tile


@triton.jit
def activate(value, slope, ACTIVATION: tl.constexpr, ROUNDED: tl.constexpr):
    """The activation named ``ACTIVATION``; none of None."""
    if ACTIVATION == "relu":
        # A comparison that NaN fails keeps it, as PyTorch does.
        value = tl.where(value < 0.0, 0.0, value)
    elif ACTIVATION == "leaky_relu":
        value = tl.where(value > 0.0, value, value * slope)
    elif ACTIVATION == "silu":
        value = silu(value, ROUNDED)
    return value


@triton.jit
def store_statistics(statistics, value, inside, slot, channel, channels):
    """Count, mean and M2 of every channel of a tile's results, to this tile's slot alone."""
    count = tl.sum(inside.to(tl.float32), 0)
    mean = tl.sum(tl.where(inside[:, None], value, 0.0), 0) / tl.maximum(count, 1.0)
    deviation = tl.where(inside[:, None], value - mean[None, :], 0.0)
    place = statistics + slot.to(tl.int64) * 3 * channels + channel
    known = channel < channels
    tl.store(place, tl.zeros_like(mean) + count, mask=known)
    tl.store(place + channels, mean, mask=known)
    tl.store(place + 2 * channels, tl.sum(deviation * deviation, 0), mask=known)


@triton.jit
def add_projection(
    total,
    pixels,  # pointers to a pixel of each row
    inside,
    channel_stride,
    channels,
    matrix,  # (columns, depth); a pointer or a descriptor
    column,
    depth,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """``total`` and the products of the pixels' channels with a 1x1 filter's matrix."""
    index = tl.arange(0, DEPTH)
    offsets = tl.arange(0, COLUMNS)[:, None] * depth + index[None, :]
    for k in tl.range(0, depth, DEPTH):
        channel = k + index
        held = inside[:, None] & (channel < channels)[None, :]
        at = pixels[:, None] + channel.to(tl.int64)[None, :] * channel_stride
        factors = load_tile(matrix, column, k, depth, offsets, DESCRIPTORS)
        samples = tl.load(at, mask=held, other=0.0).to(factors.dtype)  # differ when interpreted
        samples = round_to_tf32(samples, PRECISION == "tf32")
        total = tl.dot(samples, factors.T, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=["lead", "unit_rows", "lines", "line_cells", "height", "width"])
def tap_gemm_kernel(
    x,  # padded images, (rows, STRIDE^2 * depth); a pointer or a descriptor
    weight,  # packed filters, (PHASES^2 * columns, TAPS^2 * depth); likewise
    bias,  # (channels,), or None
    residual,  # (N, residual_channels, height, width), any strides, or None
    projection,  # of it, packed 1x1 filters, (columns, residual_depth); likewise, or None
    y,  # (N, channels, height, width), channels_last: out
    statistics,  # (tiles * PHASES^2, 3, channels): out, or None
    lead,  # rows before the first image
    unit_rows,  # that tiles do not reach over: of all images, or of one
    lines,  # of cells in an image, the border's included
    line_cells,
    depth,  # of a sample in x
    columns,  # rows of weight per phase
    channels,
    height,
    width,
    residual_batch,
    residual_channel,
    residual_line,
    residual_pixel,
    residual_channels,  # those of y without a projection
    residual_depth,  # of a row of projection
    slope,  # of leaky_relu
    STRIDE: tl.constexpr,
    PHASES: tl.constexpr,
    TAPS: tl.constexpr,  # of the longest window
    START_0: tl.constexpr,  # the window of phase 0, in either direction
    TAPS_0: tl.constexpr,
    START_1: tl.constexpr,  # and of phase 1
    TAPS_1: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    ROUNDED: tl.constexpr,  # to 16 bits
    DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PROJECTION_DEPTH: tl.constexpr,
):
    """A convolution with its epilogue.

    Equation: y[n, P j + q] = f(sum_t x[n, S j + start_q + t] w_qt + bias + r), in both
        directions (forms.py); r is the residual, or its product with a 1x1 filter, which is one
        more tap of the same sum. Sample S j + i is row j + floor(i / S) of its line, column block
        i mod S: rows of x shifted by a constant, over all images at once. Rows of the border are
        computed with the others and not stored.
    Grid: one program per tile of ROWS cells and COLUMNS channels of one phase; neighbouring
        programs read the same rows.
    Numerics: products summed in float32, tap after tap; epilogue in float32, one rounding.
        Statistics are those of the rounded results, about the mean of the tile.
    Saved for backward: the launcher's business; y tells the sign that relu and leaky_relu had.
    Paper: none; the rows are those of Vasudevan, Anderson and Gregg, "Parallel multi channel
        convolution using general matrix multiplication", ASAP 2017 (kn2row).
    """
    column_tiles = columns // COLUMNS
    program = tl.program_id(0)
    column = (program % column_tiles) * COLUMNS
    program = program // column_tiles
    phase = program % (PHASES * PHASES)
    tile = program // (PHASES * PHASES)
    unit_tiles = tl.cdiv(unit_rows, ROWS)
    unit = tile // unit_tiles
    first = unit * unit_rows + (tile % unit_tiles) * ROWS

    phase_y, phase_x = phase // PHASES, phase % PHASES
    start_y = tl.where(phase_y == 0, START_0, START_1)
    start_x = tl.where(phase_x == 0, START_0, START_1)
    taps_y = tl.where(phase_y == 0, TAPS_0, TAPS_1)
    taps_x = tl.where(phase_x == 0, TAPS_0, TAPS_1)

    x_stride, weight_stride = STRIDE * STRIDE * depth, TAPS * TAPS * depth
    row_index, depth_index = tl.arange(0, ROWS), tl.arange(0, DEPTH)
    x_offsets = row_index[:, None] * x_stride + depth_index[None, :]
    weight_offsets = tl.arange(0, COLUMNS)[:, None] * weight_stride + depth_index[None, :]
    steps = depth // DEPTH
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in tl.range(0, taps_y * taps_x * steps):
        tap, k = step // steps, (step % steps) * DEPTH
        tap_y, tap_x = tap // taps_x, tap % taps_x
        at_y, at_x = start_y + tap_y, start_x + tap_x
        # STRIDE is 1 or 2: shifts and masks are its quotients, rounded down, and remainders.
        row = lead + first + (at_y >> (STRIDE - 1)) * line_cells + (at_x >> (STRIDE - 1))
        part = (at_y & (STRIDE - 1)) * STRIDE + (at_x & (STRIDE - 1))
        samples = load_tile(x, row, part * depth + k, x_stride, x_offsets, DESCRIPTORS)
        factors = load_tile(
            weight,
            phase * columns + column,
            (tap_y * TAPS + tap_x) * depth + k,
            weight_stride,
            weight_offsets,
            DESCRIPTORS,
        )
        total = tl.dot(samples, factors.T, total, input_precision=PRECISION)

    row = first + row_index
    line = row // line_cells
    out_y = (line % lines) * PHASES + phase_y
    out_x = (row % line_cells) * PHASES + phase_x
    inside = (row < (unit + 1) * unit_rows) & (out_y < height) & (out_x < width)
    image = (line // lines).to(tl.int64)
    channel = column + tl.arange(0, COLUMNS)
    known = channel < channels
    stored = inside[:, None] & known[None, :]
    if residual is not None:
        place = image * residual_batch + out_y.to(tl.int64) * residual_line
        place += out_x.to(tl.int64) * residual_pixel
        if projection is not None:
            total = add_projection(
                total,
                residual + place,
                inside,
                residual_channel,
                residual_channels,
                projection,
                column,
                residual_depth,
                DESCRIPTORS,
                PRECISION,
                COLUMNS,
                PROJECTION_DEPTH,
            )
        else:
            place = place[:, None] + channel.to(tl.int64)[None, :] * residual_channel
            total += tl.load(residual + place, mask=stored, other=0.0).to(tl.float32)
    if bias is not None:
        total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    result = activate(total, slope, ACTIVATION, ROUNDED).to(y.dtype.element_ty)
    pixel = (image * height + out_y) * width + out_x
    tl.store(y + (pixel[:, None] * channels + channel[None, :]), result, mask=stored)
    if statistics is not None:
        slot = tile * (PHASES * PHASES) + phase
        store_statistics(statistics, result.to(tl.float32), inside, slot, channel, channels)
