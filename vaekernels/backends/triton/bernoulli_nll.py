"""``vk.bernoulli_nll`` on Triton: the formula of one element, and of its gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from vaekernels.backends.triton.elementary import divide, exp, log1p_of_fraction
from vaekernels.backends.triton.row_sum import implement_row_sum, row_sum_configs


@triton.jit
def bernoulli_nll_formula(x, t):
    """Negative log-likelihood, t log(1 + exp(-x)) + (1 - t) log(1 + exp(x)).

    Numerics: log1p has full relative accuracy, so that a confident, right logit keeps its tiny
        loss. With log(1 + exp(-|x|)) split off both terms, the rest never cancels.
    Paper: Kingma and Welling 2013, appendix C.1.
    """
    return x * tl.where(x > 0.0, 1.0 - t, -t) + log1p_of_fraction(exp(-tl.abs(x)))


@triton.jit
def bernoulli_nll_gradients(g, x, t):
    """Gradients d/dx = g (sigmoid(x) - t), d/dt = -g x; exp(-|x|) cannot overflow."""
    e = exp(-tl.abs(x))
    sigmoid = divide(tl.where(x < 0.0, e, 1.0), 1.0 + e)
    return g * (sigmoid - t), -g * x


bernoulli_nll, bernoulli_nll_backward = implement_row_sum(
    bernoulli_nll_formula, bernoulli_nll_gradients
)
AOT_CONFIGS = row_sum_configs(bernoulli_nll_formula, bernoulli_nll_gradients)
