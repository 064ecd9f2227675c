"""Paths between latent vectors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PathName = Literal["linear", "spherical"]


def lerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(B, L), (B, L) -> (B, steps, L): the straight line, end points included."""
    t = _positions(a, steps)
    return (1.0 - t) * a.unsqueeze(1) + t * b.unsqueeze(1)


def slerp(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(B, L), (B, L) -> (B, steps, L): along the great circle; straight where that is undefined.

    The norm goes evenly from that of ``a`` to that of ``b``: samples of a normal prior lie near
    a sphere, which the straight line leaves.

    Paper: T. White, "Sampling generative networks", 2016 (section 2.1).
    """
    t = _positions(a, steps)
    norms = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    cosine = (a * b).sum(1, keepdim=True) / (norms[0] * norms[1])
    angle = cosine.clamp(-1.0, 1.0).acos().unsqueeze(1)
    first, second = ((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()
    unit_a, unit_b = (a / norms[0]).unsqueeze(1), (b / norms[1]).unsqueeze(1)
    radius = (1.0 - t) * norms[0].unsqueeze(1) + t * norms[1].unsqueeze(1)
    arc = radius * (first * unit_a + second * unit_b)
    # Parallel, opposite and zero vectors have no unique great circle.
    defined = angle.sin() > 1e-4
    return torch.where(defined, arc, lerp(a, b, steps))


def _positions(like: Tensor, steps: int) -> Tensor:
    return torch.linspace(0.0, 1.0, steps, device=like.device, dtype=like.dtype).view(1, steps, 1)
