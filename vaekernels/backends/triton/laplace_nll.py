"""``vk.laplace_nll`` on Triton: the formula of one element, and of its gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from vaekernels.backends.triton.elementary import divide, log
from vaekernels.backends.triton.row_sum import implement_row_sum, row_sum_configs


@triton.jit
def laplace_nll_formula(m, t, s):
    """Negative log-likelihood, log(2 s) + |t - m| / s.

    Numerics: log by elementary.py, division correctly rounded. A scale that is one number costs no
        memory traffic, and its logarithm is computed once per thread.
    Paper: Isola et al. 2017.
    """
    return log(2.0 * s) + divide(tl.abs(t - m), s)


@triton.jit
def laplace_nll_gradients(g, m, t, s):
    """Gradients d/dm = -g sign(t - m) / s = -d/dt, d/ds = g / s - g |t - m| / s^2; sign(0) = 0."""
    distance = t - m
    sign = tl.where(distance > 0.0, 1.0, tl.where(distance < 0.0, -1.0, 0.0))
    rate = divide(g, s)
    slope = rate * sign
    return -slope, slope, rate - g * divide(divide(tl.abs(distance), s), s)


laplace_nll, laplace_nll_backward = implement_row_sum(laplace_nll_formula, laplace_nll_gradients)
AOT_CONFIGS = row_sum_configs(laplace_nll_formula, laplace_nll_gradients, numbers=1)
