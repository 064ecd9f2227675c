"""Images as kernels take them, and how they are cut into tiles.

A tensor (N, C, ...) lies as planes, (N, C, length), or as pixels, (N, length, C), the memory
format channels_last. A tile is some channels by some positions of one sample. Its shape, and how
many of them a program takes one after the other, depend on the sample's shape alone: so the chip
is filled at any batch, and a sample's results are the same bits in every batch.

Loops of the kernels are ``while``: the interpreter of Triton 3.6 has no range over a launch's
argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.launch_grid import cdiv, next_power_of_2

TILE = 2048  # elements: 16 for each thread, two to four loads of 128 bits
# Channels of a tile of pixels: 128 bytes in a row are enough for the memory, and the fewer there
# are the more positions are summed before a sum is written.
CHANNELS = 64
# Of a sample, about: several for each multiprocessor, and not more partial sums than necessary.
PROGRAMS = 2048


@triton.jit
def locate(blocks, segments, PIXELS: tl.constexpr):
    """Sample (int64), block of channels and segment of positions (int32) of this program.

    Programs that run at the same time read memory side by side.
    """
    program = tl.program_id(0)
    sample = (program // (blocks * segments)).to(tl.int64)
    if PIXELS:
        block = program % blocks
        segment = program // blocks % segments
    else:
        block = program // segments % blocks
        segment = program % segments
    return sample, block, segment


@triton.jit
def offsets(sample, channel, position, channels, length, PIXELS: tl.constexpr):
    """Where elements lie; ``sample`` and ``position`` are int64, and so is every product."""
    if PIXELS:
        at = (sample * length + position) * channels + channel
    else:
        at = (sample * channels + channel) * length + position
    return at


@dataclass(frozen=True)
class Images:
    """A tensor (N, C, ...) that lies in one piece, as planes or as pixels."""

    tensor: Tensor
    pixels: bool

    @classmethod
    def of(cls, x: Tensor, pixels: bool | None = None) -> Images:
        """``x`` as planes or pixels, or, None, as it lies; copied only where it lies otherwise."""
        if pixels is None:
            pixels = is_channels_last(x)
        if not pixels:
            return cls(x.contiguous(), False)
        return cls(x.movedim(1, -1).contiguous().movedim(-1, 1), True)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Batch, channels and length."""
        batch, channels, *spatial = self.tensor.shape
        return batch, channels, math.prod(spatial)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` lies as pixels, and pixels differ from planes."""
    return x.shape[1] > 1 and x.movedim(1, -1).is_contiguous()


def is_dense(x: Tensor) -> bool:
    """Whether ``x`` lies as planes or as pixels."""
    return x.is_contiguous() or is_channels_last(x)


@dataclass(frozen=True)
class Cut:
    """How a sample of (channels, length) is cut.

    Attributes:
        channels: of a tile.
        positions: of a tile.
        blocks: of the sample's channels.
        segments: of the sample's positions.
        steps: tiles of a segment, which one program takes.
    """

    channels: int
    positions: int
    blocks: int
    segments: int
    steps: int

    @classmethod
    def of(cls, channels: int, length: int, pixels: bool, reduces: bool) -> Cut:
        """For a kernel that reduces over positions, or one that maps each element."""
        widest, longest = next_power_of_2(channels), next_power_of_2(length)
        if pixels:
            side = min(CHANNELS, widest)
            positions = min(TILE // side, longest)
        else:
            positions = min(TILE, longest)
            side = min(TILE // positions, widest)
        blocks, tiles = cdiv(channels, side), cdiv(length, positions)
        steps = cdiv(blocks * tiles, PROGRAMS) if reduces else 1
        return cls(side, positions, blocks, cdiv(tiles, steps), steps)

    @property
    def programs(self) -> int:
        """Of a sample."""
        return self.blocks * self.segments
