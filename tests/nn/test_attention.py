"""Attention by two matrix products and a softmax, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vaekernels.ops import _attention
from vaekernels.ops._attention import attend, attend_in_rows


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize("score_bytes", (1, 5000, 2**20))
def test_in_rows(dtype: torch.dtype, score_bytes: int) -> None:
    """One row at a time, several with a rest, all at once; scores that want a softmax's care."""
    q, k, v = (torch.randn(2, 37, 24).to(dtype) for _ in range(3))
    q *= 20
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    eager = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    got = attend_in_rows(q, k, v, score_bytes)
    assert got.dtype == dtype
    bound = 2 * (eager.double() - exact).abs().max() + 8 * torch.finfo(dtype).eps
    assert (got.double() - exact).abs().max() <= bound


def test_large_scores_are_finite_in_float16() -> None:
    """They are beyond 65504 before they are scaled."""
    q = torch.full((1, 4, 512), 30.0, dtype=torch.float16)
    assert torch.equal(attend_in_rows(q, q, q), q)


def test_fewer_queries_than_keys() -> None:
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 11, 8), torch.randn(2, 11, 8)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend_in_rows(q, k, v, 200), expected)


def test_a_cpu_takes_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attention, "attend_in_rows", None)
    q = torch.randn(1, 3, 512)
    torch.testing.assert_close(attend(q, q, q), F.scaled_dot_product_attention(q, q, q))
