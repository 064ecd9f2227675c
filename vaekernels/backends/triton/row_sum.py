"""The ops that sum a formula over each row, (B, ...), ... -> (B,): kernels, launches, registration.

An op gives two device functions: the formula of one element, and its gradients times ``g``. Both
take the inputs in the order of the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton import implements
from vaekernels.backends.triton.aot import Config, tile_configs
from vaekernels.backends.triton.launch_grid import COMPUTE, compute_dtype
from vaekernels.backends.triton.row_reduction import (
    Operand,
    Tiling,
    gradient_outputs,
    launch,
    load_operand,
    load_row,
    store_gradient,
    store_row_sum,
    tile_position,
    zero_gradients,
)

INPUTS = "abcd"  # the kernels' names of an op's inputs; those beyond the last are None


def _name_of(specialization: Any) -> str:
    """Name of a compiled kernel, from that of its formula."""
    return specialization.constants["FORMULA"].__name__.replace("_formula", "_kernel")


def _backward_name_of(specialization: Any) -> str:
    return specialization.constants["GRADIENTS"].__name__.replace("_gradients", "_backward_kernel")


@triton.jit(do_not_specialize=["batch", "segments"], repr=_name_of)
def row_sum_kernel(
    a,  # operand (B, extent)
    b,  # operand (B, extent), or one number
    c,  # as above, or None
    d,  # as above, or None
    partial,  # (B, segments): out, sums of the formula
    a_stride,
    b_stride,
    c_stride,
    d_stride,
    batch,
    extent,
    segments,
    FORMULA: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Forward.

    Equation: partial[row, segment] = sum of FORMULA(a, b, ...) over the segment.
    Grid: one program per tile (row_reduction.py).
    Numerics: float32 or float64.
    Saved for backward: the inputs.
    Paper: see the formula.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    x = load_operand(a, a_stride, row, column, mask, COMPUTE)
    y = load_operand(b, b_stride, row, column, mask, COMPUTE)
    if c is None:
        value = FORMULA(x, y)
    elif d is None:
        value = FORMULA(x, y, load_operand(c, c_stride, row, column, mask, COMPUTE))
    else:
        z = load_operand(c, c_stride, row, column, mask, COMPUTE)
        value = FORMULA(x, y, z, load_operand(d, d_stride, row, column, mask, COMPUTE))
    store_row_sum(partial, value, row, mask, batch, segments, ROWS, COLUMNS)


@triton.jit(do_not_specialize=["grad_stride", "batch", "segments"], repr=_backward_name_of)
def row_sum_backward_kernel(
    grad,  # (B,)
    a,  # operand (B, extent)
    b,  # operand (B, extent), or one number
    c,  # as above, or None
    d,  # as above, or None
    grad_a,  # like a: out, or None
    grad_b,  # like b (one number: (B, segments)): out, or None
    grad_c,  # like c (one number: (B, segments)): out, or None
    grad_d,  # like d (one number: (B, segments)): out, or None
    grad_stride,
    a_stride,
    b_stride,
    c_stride,
    d_stride,
    grad_a_stride,
    grad_b_stride,
    grad_c_stride,
    grad_d_stride,
    batch,
    extent,
    segments,
    GRADIENTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Backward.

    Equation: grad_a, grad_b, ... = GRADIENTS(grad, a, b, ...).
    Grid: one program per tile (row_reduction.py).
    Numerics: as forward. The gradient of a single number is summed per row and segment here,
        then over all of them in float64 in a fixed order.
    Saved for backward: recomputes from the inputs.
    Paper: see the formula.
    """
    row, column, mask = tile_position(batch, extent, segments, ROWS, COLUMNS)
    g = load_row(grad, grad_stride, row, batch, COMPUTE)
    x = load_operand(a, a_stride, row, column, mask, COMPUTE)
    y = load_operand(b, b_stride, row, column, mask, COMPUTE)
    if c is None:
        dx, dy = GRADIENTS(g, x, y)
    else:
        z = load_operand(c, c_stride, row, column, mask, COMPUTE)
        if d is None:
            dx, dy, dz = GRADIENTS(g, x, y, z)
        else:
            w = load_operand(d, d_stride, row, column, mask, COMPUTE)
            dx, dy, dz, dw = GRADIENTS(g, x, y, z, w)
    out = (row, column, mask, batch, segments)
    store_gradient(grad_a, grad_a_stride, dx, *out, ROWS, COLUMNS)
    store_gradient(grad_b, grad_b_stride, dy, *out, ROWS, COLUMNS)
    if c is not None:
        store_gradient(grad_c, grad_c_stride, dz, *out, ROWS, COLUMNS)
    if d is not None:
        store_gradient(grad_d, grad_d_stride, dw, *out, ROWS, COLUMNS)


def _padded(values: Sequence[Any]) -> list[Any]:
    """One value per input of the kernels, None for those that the op does not have."""
    return [*values, *[None] * (len(INPUTS) - len(values))]


def implement_row_sum(formula: Any, gradients: Any) -> tuple[Callable[..., Any], ...]:
    """Register an op and its backward.

    Args:
        formula: device function ``<op>_formula(*inputs)``, one element's term of the sum.
        gradients: device function ``<op>_gradients(g, *inputs)``, a gradient per input.

    Returns:
        The two functions that were registered.
    """
    op = formula.__name__.removesuffix("_formula")

    @implements(op)
    def forward(*inputs: Tensor) -> Tensor:
        first = inputs[0]
        dtype, tiling = compute_dtype(*inputs), Tiling.of(first)
        if first.numel() == 0:
            return first.new_zeros(tiling.batch, dtype=dtype)
        operands = [Operand.of(tensor, first, dtype) for tensor in inputs]
        partial = tiling.partial(first, dtype)
        launch(
            row_sum_kernel,
            tiling,
            first,
            *_padded([operand.argument for operand in operands]),
            partial,
            *_padded([operand.stride for operand in operands]),
            FORMULA=formula,
            COMPUTE=COMPUTE[dtype],
        )
        return tiling.merge(partial)

    @implements(f"{op}_backward")
    def backward(grad: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:
        *inputs, mask = arguments
        first = inputs[0]
        if grad is None or first.numel() == 0 or not any(mask):
            return zero_gradients(inputs, mask)
        dtype, tiling = compute_dtype(*inputs), Tiling.of(first)
        operands = [Operand.of(tensor, first, dtype) for tensor in inputs]
        outputs = gradient_outputs(inputs, mask, tiling, dtype)
        launch(
            row_sum_backward_kernel,
            tiling,
            first,
            grad,
            *_padded([operand.argument for operand in operands]),
            *_padded([output.argument for output in outputs]),
            grad.stride(0),
            *_padded([operand.stride for operand in operands]),
            *_padded([output.stride for output in outputs]),
            GRADIENTS=gradients,
            COMPUTE=COMPUTE[dtype],
        )
        return tuple(output.finish() for output in outputs)

    return forward, backward


def row_sum_configs(formula: Any, gradients: Any, numbers: int = 0) -> list[Config]:
    """Configurations that the ahead-of-time gate compiles.

    Args:
        formula: as in :func:`implement_row_sum`.
        gradients: as in :func:`implement_row_sum`.
        numbers: how many of the last inputs are single numbers as a rule: compiled as tensors, as
            constants ("fixed") and as parameters ("learned").
    """
    op = formula.__name__.removesuffix("_formula")
    count = len(formula.arg_names)
    absent = INPUTS[count:]
    forward = {"FORMULA": formula, **_arguments(absent, None, None)}
    backward = {"GRADIENTS": gradients, **_arguments(absent, None, None, None)}
    configs = [
        *tile_configs(row_sum_kernel, op, **forward),
        *tile_configs(row_sum_backward_kernel, f"{op}_backward", **backward),
    ]
    if numbers:
        last = INPUTS[count - numbers : count]
        for variant, number, grad in (("fixed", "fp32", None), ("learned", "*fp32", "*fp32:16")):
            special = forward | _arguments(last, number, None)
            configs += tile_configs(row_sum_kernel, op, variant, **special)
            special = backward | _arguments(last, number, None, grad)
            configs += tile_configs(row_sum_backward_kernel, f"{op}_backward", variant, **special)
    return configs


def _arguments(inputs: str, kind: str | None, stride: None, *grad: str | None) -> dict[str, Any]:
    """What the kernels take for some inputs; ``grad`` is that of the backward kernel."""
    names = {"": kind, "_stride": stride}
    arguments = {f"{name}{suffix}": value for name in inputs for suffix, value in names.items()}
    for gradient in grad:
        for name in inputs:
            arguments |= {f"grad_{name}": gradient, f"grad_{name}_stride": None}
    return arguments
