"""Rounding to tf32, where the factors of a product are written.

The matrix units take a float32 for a tf32 by cutting 13 bits off: twice the error of rounding, and
always towards zero. So what they multiply is rounded by the kernels that write it anyway; and in
Triton's interpreter, whose products know no tf32, results are what they are on a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def round_to_tf32(value, TF32: tl.constexpr):
    """float32 with 10 bits of mantissa, the nearest, ties to even; as it is where not ``TF32``."""
    if TF32:
        bits = value.to(tl.int32, bitcast=True)
        nearest = (bits + 0xFFF + ((bits >> 13) & 1)) & -0x2000
        # A NaN may be carried into the sign; cut off, it may be an infinity.
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        value = tl.where(is_nan, float("nan"), nearest.to(tl.float32, bitcast=True))
    return value
