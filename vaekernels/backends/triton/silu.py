"""SiLU and its derivative, for the kernels that end in it."""

from __future__ import annotations

import triton
import triton.language as tl

from vaekernels.backends.triton.elementary import divide, exp


@triton.jit
def _one_and_exponential_of_minus(u, ROUNDED: tl.constexpr):
    return 1.0 + (tl.exp(-u) if ROUNDED else exp(-u))


@triton.jit
def silu(u, ROUNDED: tl.constexpr):
    """SiLU, u / (1 + exp(-u)).

    ``ROUNDED``: the result will be rounded to 16 bits, which hides the 2 units in the last place
    of float32 that the hardware's exponential and quotient may be off. Correctly rounded
    arithmetic would take longer there than the memory.
    """
    denominator = _one_and_exponential_of_minus(u, ROUNDED)
    return u / denominator if ROUNDED else divide(u, denominator)


@triton.jit
def silu_derivative(u, ROUNDED: tl.constexpr):
    """The derivative of silu; ``ROUNDED`` as there."""
    denominator = _one_and_exponential_of_minus(u, ROUNDED)
    s = 1.0 / denominator if ROUNDED else divide(1.0 + tl.zeros_like(u), denominator)
    return s * tl.fma(u, 1.0 - s, 1.0)
