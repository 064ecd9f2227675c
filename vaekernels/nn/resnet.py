"""``vk.nn.ResnetBlock``: the residual block of latent diffusion's autoencoders."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import SILU, Used, is_conv1x1, is_conv3x3, is_group_norm
from vaekernels.nn.layer_chain import Affine, Chain, State, Step, conv_step, norm_conv3x3


class ResnetBlock(Chain):
    r"""Two 3x3 convolutions, each after a normalisation, and a residual connection, as two ops.

    .. math::
        h = w_1 * \mathrm{SiLU}(\mathrm{GN}_1(x)) + b_1, \qquad
        y = w_2 * \mathrm{SiLU}(\mathrm{GN}_2(h)) + b_2 + s(x)

    with s the identity, or a 1x1 convolution where the number of channels changes.

    Equivalent PyTorch::

        h = conv1(F.silu(norm1(x)))
        y = conv2(F.silu(norm2(h))) + (x if conv_shortcut is None else conv_shortcut(x))

    The state dict has diffusers' keys (``ResnetBlock2D``): norm1, conv1, norm2, conv2 and, if the
    number of channels changes, conv_shortcut. The children hold the parameters and are called only
    if one of them was modified.

    Shapes: (N, Ci, H, W) to (N, Co, H, W).

    Args:
        in_channels: channels of x.
        out_channels: channels of y; None for ``in_channels``.
        groups: number of groups of the normalisations.
        eps: value added to the variances.

    Raises:
        ValueError: ``groups`` does not divide a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        groups: int = 32,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def steps(self) -> list[Step]:
        """The two convolutions, each with its normalisation."""
        shortcut = 0 if self.conv_shortcut is None else self.conv_shortcut.out_channels
        return [
            conv_step(
                self._first, self.conv1, norm=self.norm1, skip_channels=self.conv1.in_channels
            ),
            conv_step(self._second, self.conv2, norm=self.norm2, temporary=shortcut),
        ]

    def replaced_layers(self) -> Iterator[Used]:
        """All layers and ``F.silu``."""
        yield from ((self.norm1, is_group_norm), (self.conv1, is_conv3x3), SILU)
        yield from ((self.norm2, is_group_norm), (self.conv2, is_conv3x3))
        if self.conv_shortcut is not None:
            yield self.conv_shortcut, is_conv1x1

    def call_layers(self, x: Tensor) -> Tensor:
        """The equation as calls of the layers."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))

    def _first(self, state: State, affine: Affine | None) -> State:
        return norm_conv3x3(state, self.norm1, self.conv1, affine, skip=state.x)

    def _second(self, state: State, affine: Affine | None) -> State:
        return norm_conv3x3(
            *(state, self.norm2, self.conv2, affine, state.skip, self.conv_shortcut)
        )
