"""Estimates of the memory of steps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vaekernels.backends import registry
from vaekernels.nn.layer_chain import UPSAMPLE_CONV3X3, Step

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_BYTES = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)

# Scratch memory and pooled results of the CPU kernels: docs/convolutions.md, "Memory kept between
# calls".
_POOLED_FROM = 1 << 20
_POOL = 256 << 20
_SHARED_SCRATCH = 16 << 20
_THREAD_SCRATCH = 1 << 20
_SHARED_FILTERS = 8 << 20
_FEW_CHANNELS = 16


def parse_bytes(value: int | str) -> int:
    """Parse an amount of memory such as ``"2GiB"``, ``"800 MB"`` or a number of bytes.

    Raises:
        TypeError: ``value`` is neither a string nor an integer.
        ValueError: ``value`` is not a positive amount.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(
            f'max_memory must be a number of bytes or a string such as "2GiB"; got {value!r}'
        )
    count: float = 0
    if isinstance(value, int):
        count = value
    elif match := _BYTES.fullmatch(value):
        number, unit, binary = match.groups()
        units = _BINARY_UNITS if binary and unit else _UNITS
        count = float(number) * units[unit.upper()]
    if count < 1:
        raise ValueError(
            f'max_memory must be a positive number of bytes or such as "2GiB"; got {value!r}'
        )
    return int(count)


def format_bytes(count: int) -> str:
    """Format bytes in GiB or MiB, rounded up, such that :func:`parse_bytes` can read them."""
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    hundredths = -(-count * 100 // unit)
    return f"{hundredths / 100:.2f}{name}"


@dataclass(frozen=True)
class MemoryModel:
    """Memory of steps on one device in one dtype.

    Attributes:
        batch: batch size N.
        itemsize: bytes of an element.
        fused: whether the CPU kernels run, which materialise neither normalised nor upsampled
            images and keep transformed filters.
        columns: whether convolutions unfold their input, as PyTorch's do for float64 on the CPU.
        threads: number of PyTorch's threads.
    """

    batch: int
    itemsize: int
    fused: bool
    columns: bool
    threads: int

    @classmethod
    def of(cls, batch: int, device: str, dtype: torch.dtype) -> MemoryModel:
        """The model for ``batch`` images and parameters of ``dtype`` on a type of device."""
        return cls(
            batch=batch,
            itemsize=dtype.itemsize,
            fused=registry.select("conv3x3", device, dtype) == "cpu",
            columns=device == "cpu" and dtype == torch.float64,
            threads=torch.get_num_threads(),
        )

    def bytes(self, channels: int, pixels: int) -> int:
        """Bytes of a batch of images."""
        return self.batch * channels * pixels * self.itemsize

    def normalised(self, channels: int, pixels: int) -> int:
        """Bytes of normalised images; for 16-bit inputs there is a float32 copy, too."""
        return self.bytes(channels, pixels) * (3 if self.itemsize < 4 else 1)

    def filters(self, steps: Sequence[Step]) -> int:
        """Upper bound on the transformed filters that are kept, with copies of their weights."""
        return sum(
            self._transformed(conv, step) + conv.weight.numel() * self.itemsize
            for step in steps
            for conv in step.convs
            if self.fused
        )

    def scratch(self, steps: Sequence[Step]) -> int:
        """Scratch memory of the kernels."""
        if not self.fused:
            return 0
        largest = max(
            (self._transformed(conv, step) for step in steps for conv in step.convs), default=0
        )
        shared = _SHARED_SCRATCH if largest > _SHARED_FILTERS else 0
        return shared + self.threads * _THREAD_SCRATCH

    def pooled(self, results: Sequence[int]) -> int:
        """Upper bound on the freed results that are kept for reuse.

        Results of one size share buffers: one is written while at most two others are kept.
        """
        kept = Counter(size for size in results if size >= _POOLED_FROM)
        return min(_POOL, sum(size * min(count, 2) for size, count in kept.items())) * self.fused

    def temporaries(self, step: Step, incoming: int, pixels: int, tiled: bool) -> int:
        """Bytes of the temporaries of a step, in addition to the states before and after it.

        Args:
            step: the step.
            incoming: number of channels of its input.
            pixels: number of pixels of its result.
            tiled: whether the statistics of its normalisation are given.
        """
        source = pixels * step.window.down**2 // step.window.up**2
        held = self.bytes(step.temporary, pixels)
        if step.norm is not None:
            # The kernels normalise while reading, except for few output channels, where they
            # materialise the normalised tensor; PyTorch uses two ops.
            in_place = self.fused and not tiled and step.channels > _FEW_CHANNELS
            tensors = 0 if in_place else 1 if self.fused or tiled else 2
            held += tensors * self.normalised(incoming, source)
        if step.convs and not self.fused:
            # The upsampled or padded image, and the buffers of PyTorch's convolution.
            held += self.bytes(incoming, max(source, pixels)) * (10 if self.columns else 2)
            held += self.bytes(step.channels, pixels)
        return held

    def _transformed(self, conv: nn.Conv2d, step: Step) -> int:
        points = 36
        if step.window == UPSAMPLE_CONV3X3:
            points = 25
        elif step.window.down == 2:
            points = 4 * 25
        rounded = -(-conv.out_channels // 32) * 32
        return points * rounded * conv.in_channels * self.itemsize
