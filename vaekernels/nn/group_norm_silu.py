"""``vk.nn.GroupNormSiLU``: ``nn.GroupNorm`` and SiLU as one op."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import SILU, is_form
from vaekernels.nn.unmodified import extends
from vaekernels.ops._uses import OpUse
from vaekernels.ops.group_norm_silu import group_norm_silu


class GroupNormSiLU(nn.GroupNorm):
    r"""``nn.GroupNorm`` with scale and shift, followed by SiLU, without an intermediate tensor.

    .. math::
        y = \mathrm{SiLU}(\mathrm{GroupNorm}(x))

    Equivalent PyTorch::

        nn.Sequential(nn.GroupNorm(num_groups, num_channels, eps), nn.SiLU())

    The arguments, parameters and state dict are those of ``nn.GroupNorm``, but ``eps`` defaults to
    1e-6, as in the autoencoders of latent diffusion.

    Args:
        num_groups: number of groups, a divisor of ``num_channels``.
        num_channels: number of channels C.
        eps: value added to the variance.
        **options: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: ``num_groups`` does not divide ``num_channels``.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-6, **options: object
    ) -> None:
        super().__init__(num_groups, num_channels, eps, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        if self.weight is None or not (extends(self, nn.GroupNorm) and is_form(SILU)):
            return F.silu(super().forward(x))
        return group_norm_silu(x, self.weight, self.bias, self.num_groups, eps=self.eps)

    def op_uses(self) -> list[OpUse]:
        """The op of this layer."""
        return [OpUse("group_norm_silu", (self,))]
