"""Mean and variance of the groups of an image that is given tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekernels.backends import registry
from vaekernels.nn.layer_chain import Affine


class GroupStatistics:
    """Chan's merge of the statistics of tiles, in float64.

    Args:
        norm: the normalisation that uses the statistics.

    Paper: T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 1983.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.norm = norm
        self.count = 0
        # (N, G), or () before the first tile; squares is the sum of squared deviations.
        self.mean = torch.zeros((), dtype=torch.float64, device=norm.weight.device)
        self.squares = self.mean

    def add(self, tile: Tensor) -> None:
        """Merge the statistics of ``tile``, (N, C, h, w)."""
        norm = self.norm
        # The op returns the statistics; its pass over a tile is faster than torch.var_mean.
        kernel = registry.implementation("group_norm_silu", tile)
        _, mean, rstd = kernel(tile, norm.weight, norm.bias, norm.num_groups, norm.eps, None)
        mean, variance = mean.double(), rstd.double() ** -2 - norm.eps
        count = tile[0].numel() // norm.num_groups
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + variance * count + delta**2 * (self.count * count / total)
        self.count = total

    def affine(self) -> Affine:
        """The normalisation as an affine map per channel and sample."""
        norm = self.norm
        rstd = (self.squares / self.count + norm.eps) ** -0.5
        repeats = norm.num_channels // norm.num_groups
        scale = norm.weight.double() * rstd.repeat_interleave(repeats, 1)
        shift = norm.bias.double() - self.mean.repeat_interleave(repeats, 1) * scale
        dtype = torch.promote_types(norm.weight.dtype, torch.float32)
        return Affine(*(part.to(dtype)[:, :, None, None] for part in (scale, shift)))
