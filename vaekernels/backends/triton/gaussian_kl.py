"""``vk.gaussian_kl`` on Triton: the formula of one element, and of its gradients."""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401  # the interpreter replaces it in this module

from vaekernels.backends.triton.elementary import exp
from vaekernels.backends.triton.row_sum import implement_row_sum, row_sum_configs


@triton.jit
def gaussian_kl_formula(m, lv, mp, lp):
    """Divergence, (exp(r) - 1 - r + (m - mp)^2 exp(-lp)) / 2 with r = l - lp.

    Numerics: exp by elementary.py. A prior that is one number costs no memory traffic, and its
        exponential is computed once per thread.
    Paper: Kingma and Welling 2013, appendix B.
    """
    ratio = lv - lp
    distance = m - mp
    return 0.5 * (exp(ratio) - 1.0 - ratio + distance * distance * exp(-lp))


@triton.jit
def gaussian_kl_gradients(g, m, lv, mp, lp):
    """Gradients, with r = l - lp and q = exp(-lp).

    d/dm = g (m - mp) q = -d/dmp, d/dl = g (exp(r) - 1) / 2,
    d/dlp = g (1 - exp(r) - (m - mp)^2 q) / 2.
    """
    growth = exp(lv - lp) - 1.0
    precision = exp(-lp)
    distance = m - mp
    slope = g * distance * precision
    return slope, 0.5 * g * growth, -slope, -0.5 * (g * growth + slope * distance)


gaussian_kl, gaussian_kl_backward = implement_row_sum(gaussian_kl_formula, gaussian_kl_gradients)
AOT_CONFIGS = row_sum_configs(gaussian_kl_formula, gaussian_kl_gradients, numbers=2)
