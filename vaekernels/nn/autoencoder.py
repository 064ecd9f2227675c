"""``vk.nn.Encoder`` and ``vk.nn.Decoder`` of the autoencoders of latent diffusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.attention import AttentionBlock
from vaekernels.nn.expected_layers import SILU, Used, is_conv3x3, is_group_norm
from vaekernels.nn.layer_chain import (
    Affine,
    Chain,
    State,
    Step,
    conv_step,
    convolve,
    is_unmodified_chain,
    norm_conv3x3,
)
from vaekernels.nn.resample import Downsample, Upsample
from vaekernels.nn.resnet import ResnetBlock


class _Stack(Chain):
    """Layers that are called in order."""

    def layers(self) -> Iterable[nn.Module]:
        """The layers in the order of their calls."""
        raise NotImplementedError

    def steps(self) -> list[Step]:
        """The steps of all layers."""
        chains = (layer for layer in self.layers() if isinstance(layer, Chain))
        return [step for chain in chains for step in chain.steps()]

    def replaced_layers(self) -> Iterator[Used]:
        """All layers."""
        yield from ((layer, is_unmodified_chain) for layer in self.layers())

    def call_layers(self, x: Tensor) -> Tensor:
        """The layers in order."""
        for layer in self.layers():
            x = layer(x)
        return x


class _Level(_Stack):
    """The residual blocks of one size, followed by a resampler, if any."""

    def __init__(
        self, channels: Sequence[int], groups: int, resampler: type[Upsample | Downsample] | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(*pair, groups=groups) for pair in pairwise(channels)
        )
        if resampler is not None:
            name = "upsamplers" if resampler is Upsample else "downsamplers"
            self.add_module(name, nn.ModuleList([resampler(channels[-1])]))

    def layers(self) -> Iterator[nn.Module]:
        """The blocks, then the resampler."""
        for children in self.children():
            yield from children.children()


class _Middle(_Stack):
    """A residual block, attention if any, and a residual block."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            [AttentionBlock(channels, groups=groups)] if attention else []
        )
        self.resnets = nn.ModuleList(ResnetBlock(channels, groups=groups) for _ in range(2))

    def layers(self) -> Iterator[nn.Module]:
        """The blocks, with attention after the first one."""
        first, second = self.resnets
        yield from (first, *self.attentions, second)


class _Coder(Chain):
    """Base of encoder and decoder: a convolution, stacks, a normalisation, a convolution."""

    conv_in: nn.Conv2d
    conv_norm_out: nn.GroupNorm
    conv_out: nn.Conv2d

    def _stacks(self) -> list[_Stack]:
        """The layers between the first and the last convolution."""
        raise NotImplementedError

    def steps(self) -> list[Step]:
        """The steps of all layers."""
        return [
            conv_step(self._in, self.conv_in),
            *(step for stack in self._stacks() for step in stack.steps()),
            conv_step(self._out, self.conv_out, norm=self.conv_norm_out),
        ]

    def replaced_layers(self) -> Iterator[Used]:
        """All layers, and ``F.silu``."""
        yield self.conv_in, is_conv3x3
        yield from ((stack, is_unmodified_chain) for stack in self._stacks())
        yield from ((self.conv_norm_out, is_group_norm), SILU, (self.conv_out, is_conv3x3))

    def call_layers(self, x: Tensor) -> Tensor:
        """The layers in order."""
        x = self.conv_in(x)
        for stack in self._stacks():
            x = stack(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _in(self, state: State, affine: Affine | None) -> State:
        return convolve("conv3x3", state, self.conv_in)

    def _out(self, state: State, affine: Affine | None) -> State:
        return norm_conv3x3(state, self.conv_norm_out, self.conv_out, affine)


def _levels(
    channels: Sequence[int], blocks: int, groups: int, resampler: type[Upsample | Downsample]
) -> nn.ModuleList:
    """One level for each entry of ``channels``; the first keeps the number of channels."""
    last = len(channels) - 1
    return nn.ModuleList(
        _Level((before, *blocks * [after]), groups, None if index == last else resampler)
        for index, (before, after) in enumerate(pairwise((channels[0], *channels)))
    )


class Encoder(_Coder):
    r"""Images to moments: levels of residual blocks; all but the last are followed by downsampling.

    The state dict has diffusers' keys (``Encoder``): conv_in, down_blocks.i.resnets.j,
    down_blocks.i.downsamplers.0.conv, mid_block.resnets.j, mid_block.attentions.0, conv_norm_out,
    conv_out.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H / 2^(L - 1), W / 2^(L - 1)) for L levels,
    rounded down.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the result: twice those of the latents, for mean and log variance.
        channels: channels of each level.
        blocks: number of residual blocks of a level.
        groups: number of groups of the normalisations.
        attention: whether there is attention at the smallest size.

    Raises:
        ValueError: ``groups`` does not divide a number of channels.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 8,
        channels: Sequence[int] = (128, 256, 512, 512),
        *,
        blocks: int = 2,
        groups: int = 32,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks = _levels(channels, blocks, groups, Downsample)
        self.mid_block = _Middle(channels[-1], groups, attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], 1e-6)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def _stacks(self) -> list[_Stack]:
        return [*self.down_blocks, self.mid_block]  # type: ignore[list-item]


class Decoder(_Coder):
    r"""Latents to images: levels of residual blocks; all but the last are followed by upsampling.

    The state dict has diffusers' keys (``Decoder``): conv_in, mid_block.resnets.j,
    mid_block.attentions.0, up_blocks.i.resnets.j, up_blocks.i.upsamplers.0.conv, conv_norm_out,
    conv_out.

    Shapes: (N, in_channels, H, W) to (N, out_channels, 2^(L - 1) H, 2^(L - 1) W) for L levels.

    Args:
        in_channels: channels of the latents.
        out_channels: channels of the images.
        channels: channels of each level of the encoder; the decoder uses them in reverse order.
        blocks: number of residual blocks of a level of the encoder; the decoder has one more.
        groups: number of groups of the normalisations.
        attention: whether there is attention at the smallest size.

    Raises:
        ValueError: ``groups`` does not divide a number of channels.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 3,
        channels: Sequence[int] = (128, 256, 512, 512),
        *,
        blocks: int = 2,
        groups: int = 32,
        attention: bool = True,
    ) -> None:
        super().__init__()
        upwards = list(reversed(channels))
        self.conv_in = nn.Conv2d(in_channels, upwards[0], 3, padding=1)
        self.mid_block = _Middle(upwards[0], groups, attention)
        self.up_blocks = _levels(upwards, blocks + 1, groups, Upsample)
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], 1e-6)
        self.conv_out = nn.Conv2d(channels[0], out_channels, 3, padding=1)

    def _stacks(self) -> list[_Stack]:
        return [self.mid_block, *self.up_blocks]  # type: ignore[list-item]
