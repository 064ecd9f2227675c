"""Reference of ``vk.randn``: the noise contract in plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends.reference import noise


def randn(like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None) -> Tensor:
    return noise.normals(like.shape, seed, step, sample_ids, like.device).to(like.dtype)
