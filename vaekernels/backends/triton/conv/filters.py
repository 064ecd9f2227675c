"""Weights as the matrix that the product takes, and the gradient of that matrix as theirs.

The matrix has a row per phase and output channel: the factors of the window's samples, channels
innermost. A factor is the sum of the taps that meet the sample (``forms.py``), taken in float32.
It is made anew at each call, a read and a write of the weight: so no change of a weight can go
unseen, and training and graph capture need no rules of their own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.conv.forms import Form
from vaekernels.backends.triton.conv.tf32 import round_to_tf32
from vaekernels.backends.triton.conv.tile_heuristics import factors_of
from vaekernels.backends.triton.launch_grid import cdiv, run, written_dtype

BLOCK, WIDTH = 32, 64  # of a program's tile
PACK_WARPS = 8  # a number is the sum of up to 16 loads: four warps have no registers for them


def fold(form: Form) -> int:
    """Which taps a sample of a window meets: bit k of the 4 bits at 4 (q T + t)."""
    return sum(
        1 << 4 * (q * form.taps + t) + tap
        for q, window in enumerate(form.windows)
        for t, taps in enumerate(window.taps)
        for tap in taps
    )


@triton.jit(do_not_specialize=["fold", "outputs", "inputs", "columns", "depth"])
def pack_kernel(
    weight,  # filters, any strides
    matrix,  # (PHASES^2 * columns, TAPS^2 * depth): out
    fold,  # which taps a sample meets (filters.fold)
    outputs,  # channels
    inputs,  # channels
    columns,  # rows of the matrix per phase, at least ``outputs``
    depth,  # at least ``inputs``
    weight_output,
    weight_input,
    weight_y,
    weight_x,
    KERNEL: tl.constexpr,
    PHASES: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    TF32: tl.constexpr,
):
    """Filters into the product's matrix.

    Equation: matrix[q, o, t, i] = sum of weight[o, i, k] over the taps k that sample t meets.
    Grid: one program per BLOCK rows of the matrix and WIDTH of its columns.
    Numerics: float32, one rounding, which is to 10 bits of mantissa if TF32.
    Saved for backward: nothing.
    Paper: none.
    """
    width = TAPS * TAPS * depth
    blocks = tl.cdiv(width, WIDTH)
    row = (tl.program_id(0) // blocks) * BLOCK + tl.arange(0, BLOCK)[:, None]
    place = (tl.program_id(0) % blocks) * WIDTH + tl.arange(0, WIDTH)[None, :]
    phase, output = row // columns, row % columns
    sample, input = place // depth, place % depth
    met_y = fold >> 4 * ((phase // PHASES) * TAPS + sample // TAPS)
    met_x = fold >> 4 * ((phase % PHASES) * TAPS + sample % TAPS)
    exists = (phase < PHASES * PHASES) & (output < outputs)
    exists = exists & (place < width) & (input < inputs)
    offset = output.to(tl.int64) * weight_output + input.to(tl.int64) * weight_input
    factor = tl.zeros([BLOCK, WIDTH], tl.float32)
    for k in tl.static_range(KERNEL):
        for l in tl.static_range(KERNEL):  # noqa: E741
            meets = ((met_y >> k) & (met_x >> l) & 1) != 0
            tap = weight + offset + k * weight_y + l * weight_x
            factor += tl.load(tap, mask=exists & meets, other=0.0).to(tl.float32)
    stored = (phase < PHASES * PHASES) & (place < width)
    factor = round_to_tf32(factor, TF32)
    tl.store(matrix + row.to(tl.int64) * width + place, factor, mask=stored)


@triton.jit(do_not_specialize=["fold", "splits", "inputs", "outputs", "depth", "columns"])
def unpack_kernel(
    partial,  # (splits, TAPS^2, depth, columns): sums of the matrix's gradient
    grad,  # of the filters, any strides: out
    fold,
    splits,
    inputs,
    outputs,
    depth,
    columns,
    grad_input,
    grad_output,
    grad_y,
    grad_x,
    KERNEL: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The matrix's gradient, summed over its parts, into the filters' gradient: one phase.

    Equation: grad[i, o, k] = sum of partial[s, t, i, o] over parts s and samples t that meet tap k.
    Grid: one program per tap, BLOCK inputs and BLOCK outputs.
    Numerics: float64, in a fixed order; one rounding at the end.
    Saved for backward: nothing.
    Paper: none.
    """
    program, output_blocks = tl.program_id(0), tl.cdiv(outputs, BLOCK)
    output = (program % output_blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    program, input_blocks = program // output_blocks, tl.cdiv(inputs, BLOCK)
    input = (program % input_blocks) * BLOCK + tl.arange(0, BLOCK)[:, None]
    tap = program // input_blocks
    k, l = tap // KERNEL, tap % KERNEL  # noqa: E741
    exists = (input < inputs) & (output < outputs)
    total = tl.zeros([BLOCK, BLOCK], tl.float64)
    for sample in range(0, TAPS * TAPS):
        y, x = sample // TAPS, sample % TAPS
        if ((fold >> (4 * y + k)) & (fold >> (4 * x + l)) & 1) != 0:
            for split in range(0, splits):
                row = (split * (TAPS * TAPS) + sample) * depth + input
                part = partial + row.to(tl.int64) * columns + output
                total += tl.load(part, mask=exists, other=0.0)
    place = input.to(tl.int64) * grad_input + output.to(tl.int64) * grad_output
    place += k * grad_y + l * grad_x
    tl.store(grad + place, total.to(tl.float32), mask=exists)


def pack(
    weight: Tensor, form: Form, output_dim: int, columns: int, depth: int, precision: str
) -> Tensor:
    """The matrix of ``form``, whose outputs are dimension ``output_dim`` of ``weight``.

    Args:
        weight: (Co, Ci, k, k) or (Ci, Co, k, k).
        form: that has these filters.
        output_dim: 0 or 1.
        columns: rows of the matrix per phase; those beyond the outputs are zeros.
        depth: of a sample; channels beyond the inputs are zeros.
        precision: a tier, which says what a product rounds its factors to.
    """
    shape = (form.phases**2 * columns, form.taps**2 * depth)
    matrix = torch.empty(shape, dtype=written_dtype(weight.dtype), device=weight.device)
    input_dim = 1 - output_dim
    run(
        pack_kernel,
        cdiv(shape[0], BLOCK) * cdiv(shape[1], WIDTH),
        weight,
        *(weight, matrix, fold(form)),
        *(weight.shape[output_dim], weight.shape[input_dim], columns, depth),
        *(weight.stride(output_dim), weight.stride(input_dim), *weight.stride()[2:]),
        KERNEL=form.kernel,
        PHASES=form.phases,
        TAPS=form.taps,
        BLOCK=BLOCK,
        WIDTH=WIDTH,
        TF32=factors_of(weight.dtype, precision) == "tf32",
        warps=PACK_WARPS,
    )
    return matrix


def unpack(partial: Tensor, weight: Tensor, form: Form, output_dim: int) -> Tensor:
    """The gradient of ``weight`` from that of its matrix, (splits, samples, depth, columns)."""
    splits, _, depth, columns = partial.shape
    grad = torch.empty_like(weight, dtype=written_dtype(weight.dtype))
    input_dim = 1 - output_dim
    inputs, outputs = weight.shape[input_dim], weight.shape[output_dim]
    run(
        unpack_kernel,
        form.kernel**2 * cdiv(inputs, BLOCK) * cdiv(outputs, BLOCK),
        weight,
        *(partial, grad, fold(form), splits, inputs, outputs, depth, columns),
        *(grad.stride(input_dim), grad.stride(output_dim), *grad.stride()[2:]),
        KERNEL=form.kernel,
        TAPS=form.taps,
        BLOCK=BLOCK,
    )
    return grad.to(weight.dtype)
