"""Elementary functions by arithmetic that IEEE 754 fixes, the same on every backend.

In float32 each is a fixed sequence of correctly rounded operations: no libdevice, no
approximate instruction, nothing contracted (kernels are launched with
``enable_fp_fusion=False``, see ``row_reduction.launch``). In float64 Triton's own are used.
The coefficients are those of ``csrc/common`` and ``vaekernels/backends/reference/noise.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def divide(x, y):
    """Quotient of x and y, correctly rounded: ``/`` alone is approximate in float32."""
    return x / y if x.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def exp(x):
    """e^x; in float32 within one unit in the last place, subnormal results included."""
    if x.dtype == tl.float64:
        result = tl.exp(x)
    else:
        # Beyond these bounds the result is 0 or infinity. A NaN fails both and stays.
        x = tl.where(x < -104.0, -104.0, x)
        x = tl.where(x > 89.0, 89.0, x)
        # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the significand.
        shifted = tl.fma(x, 1.44269504, 12582912.0)
        n = shifted.to(tl.int32, bitcast=True) - 0x4B400000
        nearest = shifted - 12582912.0
        r = tl.fma(nearest, -0.693359375, x)
        r = tl.fma(nearest, 2.12194440e-4, r)
        p = tl.fma(r, 0.0013941113, 0.008363175)
        p = tl.fma(p, r, 0.041666374)
        p = tl.fma(p, r, 0.16666576)
        p = tl.fma(p, r, 0.5)
        p = tl.fma(p, r * r, r) + 1.0
        # 2^n in two factors: n reaches 128 and -150, outside of a float's exponents.
        half = n >> 1
        result = p * power_of_two(half) * power_of_two(n - half)
    return result


@triton.jit
def power_of_two(n):
    """2^n as float32 for an int32 n in [-126, 127]."""
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def log_of_normal(u):
    """Natural logarithm of a positive, finite, normal float32."""
    shifted = u.to(tl.int32, bitcast=True) - 0x3F3504F3  # bits of sqrt(1/2)
    exponent = (shifted >> 23).to(tl.float32)
    m = ((shifted & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    square = m * m
    y = tl.fma(m, 0.08917868, -0.14350201)
    y = tl.fma(y, m, 0.14876962)
    y = tl.fma(y, m, -0.16565634)
    y = tl.fma(y, m, 0.19965398)
    y = tl.fma(y, m, -0.25001746)
    y = tl.fma(y, m, 0.3333386)
    y = y * m * square
    y = tl.fma(exponent, -2.12194440e-4, y)
    y = tl.fma(square, -0.5, y)
    return tl.fma(exponent, 0.693359375, m + y)


@triton.jit
def log(x):
    """Natural logarithm: -infinity at 0, NaN below."""
    if x.dtype == tl.float64:
        result = tl.log(x)
    else:
        subnormal = x < 1.1754944e-38
        result = log_of_normal(tl.where(subnormal, x * 8388608.0, x))
        result = tl.where(subnormal, result - 15.942385, result)  # 23 log 2
        result = tl.where(x == 0.0, float("-inf"), result)
        result = tl.where(x == float("inf"), float("inf"), result)
        result = tl.where(x >= 0.0, result, float("nan"))
    return result


@triton.jit
def log1p_of_fraction(e):
    """log(1 + e) for e in [0, 1], with full relative accuracy for tiny e."""
    if e.dtype == tl.float64:
        # The rounding error of 1 + e is undone by the ratio (Kahan).
        total = 1.0 + e
        result = tl.where(total == 1.0, e, tl.log(total) * (e / (total - 1.0)))
    else:
        s = tl.div_rn(e, 2.0 + e)  # log(1 + e) = 2 atanh(s)
        square = s * s
        p = tl.fma(square, 0.28191546, 0.27957666)
        p = tl.fma(p, square, 0.40025115)
        p = tl.fma(p, square, 0.6666631)
        p = tl.fma(p, square, 2.0)
        result = s * p
    return result
