"""What latent ops give for infinities, NaN, huge and denormal numbers, against plain PyTorch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk

VALUES = (0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3e38, 1e-40, 30.0, 100.0, -100.0, -200.0)
CLAMPS = (None, (-30.0, 20.0), (-30.0, math.inf))
GRADIENTS = ((1.0, None), (None, 1.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0))  # of z, of kl


def _gaussian_kl(m: Tensor, lv: Tensor, prior_m: Tensor, prior_lv: Tensor) -> Tensor:
    ratio = lv - prior_lv
    return 0.5 * (ratio.exp() - 1.0 - ratio + (m - prior_m) ** 2 * (-prior_lv).exp())


def _gaussian_nll(m: Tensor, t: Tensor, lv: Tensor) -> Tensor:
    return 0.5 * (math.log(2.0 * math.pi) + lv + (t - m) ** 2 * (-lv).exp())


def _laplace_nll(m: Tensor, t: Tensor, scale: Tensor) -> Tensor:
    return torch.log(2.0 * scale) + (t - m).abs() / scale


def _bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    if logits.dtype == torch.float32:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # PyTorch's own is infinity - infinity for every logit of -infinity.
    return target * F.softplus(-logits) + (1.0 - target) * F.softplus(logits)


# Op -> one element's term, as its docstring writes it, and how many inputs.
PLAIN: dict[str, tuple[Callable[..., Tensor], int]] = {
    "gaussian_kl": (_gaussian_kl, 4),
    "gaussian_nll": (_gaussian_nll, 3),
    "laplace_nll": (_laplace_nll, 3),
    "bernoulli_nll": (_bernoulli_nll, 2),
}


def _columns(count: int, dtype: torch.dtype) -> list[Tensor]:
    """Every combination of the values, (B, 1) for each input."""
    values = [v for v in VALUES if count < 4 or abs(v) != 1.0]
    grid = torch.tensor(list(itertools.product(values, repeat=count)), dtype=dtype)
    return [column.unsqueeze(1) for column in grid.unbind(1)]


def _gradients(
    function: Callable[..., Any], inputs: Sequence[Tensor], grads: Sequence[float | None]
) -> list[Tensor]:
    """Results, and the gradients of inputs where a result has one."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    used = [
        (r, torch.full_like(r, g)) for r, g in zip(results, grads, strict=True) if g is not None
    ]
    found = torch.autograd.grad(
        [r for r, _ in used], leaves, [g for _, g in used], materialize_grads=True
    )
    return [t.detach().flatten().double() for t in (*results, *found)]


def _assert_same(name: str, ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    """NaN where PyTorch has NaN, and nowhere else; infinities and numbers alike.

    Where float32 overflows on the way and float64 does not, either answer is right.

    Args:
        name: of what is compared.
        ours: of the op.
        plain: of PyTorch, in the same dtype.
        exact: in float64.
    """
    lost = plain.isnan() & exact.isnan() & ~ours.isnan()
    invented = ours.isnan() & ~plain.isnan()
    assert not lost.any(), f"{name} loses NaN"
    assert not invented.any(), f"{name} invents NaN"
    same = (plain == exact) & plain.isinf()
    assert torch.equal(ours[same], plain[same]), f"{name}: infinities differ"
    agreed = torch.isclose(plain, exact, rtol=1e-4, atol=1e-12) & exact.isfinite()
    torch.testing.assert_close(ours[agreed], exact[agreed], rtol=1e-4, atol=1e-12)


def check_row_op(op: str, backend: str, dtype: torch.dtype, device: str = "cpu") -> None:
    """The value and every gradient of an op that sums a formula over rows."""
    plain, count = PLAIN[op]
    columns = _columns(count, dtype)
    if op == "bernoulli_nll":  # a probability is not huge
        possible = ~(columns[1].abs() > 1e30).flatten()
        columns = [column[possible] for column in columns]
    inputs = [t.to(device) for t in columns]
    for grad in (1.0, 0.0):
        ours = _gradients(lambda *t: getattr(vk, op)(*t, backend=backend), inputs, (grad,))
        right = _gradients(plain, inputs, (grad,))
        exact = _gradients(plain, [t.double() for t in inputs], (grad,))
        for k, results in enumerate(zip(ours, right, exact, strict=True)):
            _assert_same(f"{op} {k}, gradient {grad}", *results)


def check_rsample_kl(backend: str, dtype: torch.dtype, device: str = "cpu") -> None:
    """The same of rsample_kl, with either output unused and with clamps."""
    inputs = [t.to(device) for t in _columns(2, dtype)]
    eps = vk.randn(inputs[0].shape, seed=3, dtype=torch.float32, device=device, backend=backend)
    for clamp, grads in itertools.product(CLAMPS, GRADIENTS):

        def plain(m: Tensor, lv: Tensor, clamp: Any = clamp) -> tuple[Tensor, Tensor]:
            lv = lv if clamp is None else lv.clamp(*clamp)
            z = m + (0.5 * lv).exp() * eps
            return z, (0.5 * (m * m + lv.exp() - 1.0 - lv)).squeeze(1)

        def op(m: Tensor, lv: Tensor, clamp: Any = clamp) -> tuple[Tensor, Tensor]:
            return vk.rsample_kl(m, lv, seed=3, logvar_clamp=clamp, backend=backend)

        ours = _gradients(op, inputs, grads)
        right = _gradients(plain, inputs, grads)
        exact = _gradients(plain, [t.double() for t in inputs], grads)
        for k, results in enumerate(zip(ours, right, exact, strict=True)):
            _assert_same(f"rsample_kl {k}, clamp {clamp}, gradients {grads}", *results)
