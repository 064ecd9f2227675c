"""``vk.gaussian_nll`` on Triton: the formula of one element, and of its gradients."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from vaekernels.backends.triton.elementary import exp
from vaekernels.backends.triton.row_sum import implement_row_sum, row_sum_configs

LOG_TWO_PI = tl.constexpr(math.log(2.0 * math.pi))


@triton.jit
def gaussian_nll_formula(m, t, lv):
    """Negative log-likelihood, (log(2 pi) + l + (t - m)^2 exp(-l)) / 2.

    Numerics: exp by elementary.py. A variance that is one number costs no memory traffic, and its
        exponential is computed once per thread.
    Paper: Rybkin, Daniilidis and Levine 2021 (the variance as one number).
    """
    distance = t - m
    return 0.5 * (LOG_TWO_PI + lv + distance * distance * exp(-lv))


@triton.jit
def gaussian_nll_gradients(g, m, t, lv):
    """Gradients d/dm = g (m - t) exp(-l) = -d/dt, d/dl = g (1 - (t - m)^2 exp(-l)) / 2."""
    distance = m - t
    scaled = distance * exp(-lv)
    slope = g * scaled
    return slope, -slope, 0.5 * g * (1.0 - distance * scaled)


gaussian_nll, gaussian_nll_backward = implement_row_sum(
    gaussian_nll_formula, gaussian_nll_gradients
)
AOT_CONFIGS = row_sum_configs(gaussian_nll_formula, gaussian_nll_gradients, numbers=1)
