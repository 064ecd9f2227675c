"""What the backends' own tests share: inputs, plain PyTorch, a scalar to differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vaekernels.backends.reference import noise

# What each input of an op holds (see ``make``).
KINDS: dict[str, tuple[str, ...]] = {
    "rsample_kl": ("mean", "logvar"),
    "gaussian_kl": ("mean", "logvar", "mean", "logvar"),
    "bernoulli_nll": ("logits", "probability"),
    "gaussian_nll": ("mean", "mean", "logvar"),
    "laplace_nll": ("mean", "mean", "scale"),
}


def make(kind: str, shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    value = {
        "mean": normal,
        "logvar": normal * 1.5 - 0.5,
        "logits": normal * 6.0,
        "probability": torch.sigmoid(normal),
        "scale": normal.abs() + 0.25,
    }[kind]
    return value.to(dtype)


def weights(out: Tensor) -> Tensor:
    """Weights that every dtype holds exactly, so that all runs differentiate one function."""
    numbers = torch.arange(out.numel(), dtype=torch.float64, device=out.device)
    return (numbers % 5 - 2.5).view(out.shape)


def plain(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``op`` on the reference backend."""
    return lambda *inputs: op(*inputs, backend="reference")


def plain_rsample_kl(
    mean: Tensor, logvar: Tensor, eps: Tensor, clamp: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The reference of rsample_kl with given float32 noise, that of the backend under test."""
    wide = torch.promote_types(torch.promote_types(mean.dtype, logvar.dtype), torch.float32)
    mu, lv = mean.to(wide), logvar.to(wide).clamp(*clamp)
    terms = 0.5 * (mu**2 + lv.exp() - 1.0 - lv)
    z = (mu + torch.exp(0.5 * lv) * eps).to(mean.dtype)
    return z, terms.unsqueeze(-1).flatten(1).sum(1)


def last_normals(length: int, seed: int) -> Tensor:
    """The last four normals of sample 0 at step 0, whose length is a multiple of four."""
    block = torch.tensor([length // 4 - 1])
    zero = torch.tensor([0])
    words = noise.philox((block, zero, zero, zero), (torch.tensor([seed]), zero))
    return torch.cat([*noise.box_muller(*words[:2]), *noise.box_muller(*words[2:])])
