"""``vk.nn.Upsample`` and ``vk.nn.Downsample``: resampling by 2 with a 3x3 convolution."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import INTERPOLATE, PAD, Used, conv_form, is_conv3x3
from vaekernels.nn.layer_chain import (
    DOWNSAMPLE_CONV3X3,
    UPSAMPLE_CONV3X3,
    Affine,
    Chain,
    State,
    Step,
    conv_step,
    convolve,
)

_is_unpadded_stride2 = conv_form(3, stride=2)


class Upsample(Chain):
    r"""Nearest-neighbour upsampling by 2 and a 3x3 convolution, without the upsampled tensor.

    Equivalent PyTorch::

        conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

    The state dict has diffusers' keys (``Upsample2D``): conv.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result; None for ``in_channels``.
        bias: whether the convolution has a bias.

    Shapes: (N, Ci, H, W) to (N, Co, 2H, 2W).
    """

    def __init__(
        self, in_channels: int, out_channels: int | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels or in_channels, 3, padding=1, bias=bias)

    def steps(self) -> list[Step]:
        """One convolution."""
        return [upsample_step(self.conv)]

    def replaced_layers(self) -> Iterator[Used]:
        """The convolution and ``F.interpolate``."""
        yield from ((self.conv, is_conv3x3), INTERPOLATE)

    def call_layers(self, x: Tensor) -> Tensor:
        """Upsampling, then the convolution."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(Chain):
    r"""A 3x3 convolution with stride 2 of an image that is padded below and to the right.

    Equivalent PyTorch::

        conv(F.pad(x, (0, 1, 0, 1)))  # conv without padding

    The state dict has diffusers' keys (``Downsample2D``): conv.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result; None for ``in_channels``.
        padding: ``"asymmetric"``, or ``"symmetric"`` for one pixel on every side.
        bias: whether the convolution has a bias.

    Raises:
        ValueError: ``padding`` is neither.

    Shapes: (N, Ci, H, W) to (N, Co, H / 2, W / 2), rounded down (up if symmetric).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        padding: str = "asymmetric",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if padding not in DOWNSAMPLE_CONV3X3:
            raise ValueError(
                f"Downsample: padding must be 'asymmetric' or 'symmetric'; got {padding!r}"
            )
        self.conv = nn.Conv2d(in_channels, out_channels or in_channels, 3, stride=2, bias=bias)
        self.padding = padding

    def steps(self) -> list[Step]:
        """One convolution."""
        return [downsample_step(self.conv, self.padding)]

    def replaced_layers(self) -> Iterator[Used]:
        """The convolution and ``F.pad``."""
        yield from ((self.conv, _is_unpadded_stride2), PAD)

    def call_layers(self, x: Tensor) -> Tensor:
        """Padding, then the convolution."""
        before = 0 if self.padding == "asymmetric" else 1
        return self.conv(F.pad(x, (before, 1, before, 1)))


def upsample_step(conv: nn.Conv2d) -> Step:
    """A step that calls ``vk.upsample_conv3x3`` with the parameters of ``conv``."""

    def run(state: State, affine: Affine | None) -> State:
        return convolve("upsample_conv3x3", state, conv)

    return conv_step(run, conv, UPSAMPLE_CONV3X3)


def downsample_step(conv: nn.Conv2d, padding: str) -> Step:
    """A step that calls ``vk.downsample_conv3x3`` with the parameters of ``conv``."""

    def run(state: State, affine: Affine | None) -> State:
        return convolve("downsample_conv3x3", state, conv, padding=padding)

    return conv_step(run, conv, DOWNSAMPLE_CONV3X3[padding])
