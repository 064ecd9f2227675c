"""``vaekernels bench conv``: the convolution ops and GroupNorm + SiLU against eager PyTorch.

Shapes are (batch, channels, pixels of a side), those of VAEs for images: decoders at batch 1,
training at 8 to 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from vaekernels.bench.accuracy import conv_floor
from vaekernels.bench.conv_gradients import (
    CONV3X3,
    DOWNSAMPLE3X3,
    DOWNSAMPLE4X4,
    TRANSPOSE4X4,
    UPSAMPLE,
    Convolution,
)
from vaekernels.bench.op_inputs import NORM, ConvShape, group_norm_silu
from vaekernels.bench.targets import Target, every_row, mean_of
from vaekernels.bench.workloads import LAYOUTS, Layout, Workload, of_op

# Group -> targets of its rows. Forward is inference, with constant filters, unless the direction
# is "training forward".
TARGETS: dict[str, tuple[Target, ...]] = {
    "conv3x3": (mean_of(2.5), every_row(1.0)),
    "conv3x3-training": (every_row(1.0),),
    "upsample": (mean_of(4.2),),
    "norm-forward": (mean_of(1.7), every_row(1.0)),
    "norm-training": (mean_of(1.8), every_row(1.0)),
    "input-gradient": (mean_of(2.5),),
    "weight-gradient": (mean_of(2.9),),
    "strided": (mean_of(1.5),),
    "strided-weight-gradient": (mean_of(2.0),),
    "downsample3x3": (mean_of(1.4),),
    "ends": (every_row(1.0),),
    "ends-transpose": (every_row(2.5),),
    "highest": (mean_of(1.8),),
    "highest-weight-gradient": (mean_of(1.7),),
    "odd": (every_row(1.0),),
}
GROUPS = tuple(TARGETS)

Shape = tuple[int, int, int]
Direction = Literal["forward", "training forward", "input gradient", "weight gradient"]

SHAPES: tuple[Shape, ...] = (
    (1, 128, 256),
    (1, 256, 128),
    (1, 512, 64),
    (1, 512, 32),
    (1, 64, 256),
    (1, 64, 64),
    (8, 512, 32),
    (8, 64, 64),
)
UPSAMPLED: tuple[Shape, ...] = (
    (1, 512, 32),
    (1, 256, 64),
    (1, 512, 64),
    (1, 64, 128),
    (8, 64, 64),
)
TRAINED: tuple[Shape, ...] = (
    (8, 64, 64),
    (32, 64, 32),
    (1, 128, 128),
    (1, 256, 64),
    (1, 512, 32),
)
HALVED: tuple[Shape, ...] = ((1, 128, 256), (1, 256, 128), (1, 512, 64))
STRIDED: tuple[Shape, ...] = ((64, 32, 32), (64, 64, 16), (64, 128, 8))  # twice the channels out
NORMALISED: tuple[tuple[int, int, int, int], ...] = (
    (1, 128, 256, 256),
    (1, 512, 64, 64),
    (4, 128, 64, 64),
    (8, 64, 64, 64),
    (64, 32, 32, 32),
    (1, 96, 57, 57),
)


def works(only: Sequence[str] = ()) -> list[Workload]:
    """The rows of the groups in ``only``, or of all."""
    return [row for row in _works() if not only or row.group in only]


def _works() -> Iterator[Workload]:
    for shape in SHAPES:
        yield convolution("conv3x3", CONV3X3, shape)
    for shape in SHAPES:
        yield convolution("conv3x3-training", CONV3X3, shape, direction="training forward")
    for shape in UPSAMPLED:
        yield convolution("upsample", UPSAMPLE, shape)
    for group, direction in (("norm-forward", "forward"), ("norm-training", "forward+backward")):
        for image in NORMALISED:
            for layout in LAYOUTS:
                yield group_norm(group, image, layout, direction)
    for shape in TRAINED:
        yield convolution("input-gradient", CONV3X3, shape, direction="input gradient")
    for shape in TRAINED:
        yield convolution("weight-gradient", CONV3X3, shape, direction="weight gradient")
    yield from _strided()
    for shape in HALVED:
        for op in DOWNSAMPLE3X3:
            yield convolution("downsample3x3", op, shape)
    yield convolution("ends", CONV3X3, (1, 3, 256), 128)
    yield convolution("ends", CONV3X3, (1, 128, 256), 3)
    yield convolution("ends", CONV3X3, (16, 3, 64), 64)
    yield convolution("ends", DOWNSAMPLE4X4, (64, 3, 64), 32)
    yield convolution("ends-transpose", TRANSPOSE4X4, (64, 32, 32), 3)
    for shape in SHAPES:
        yield convolution("highest", CONV3X3, shape, precision="highest")
    for shape in TRAINED:
        yield convolution(
            "highest-weight-gradient",
            CONV3X3,
            shape,
            direction="weight gradient",
            precision="highest",
        )
    yield from _odd()


def _strided() -> Iterator[Workload]:
    """The layers of a DCGAN-like VAE in training at batch 64."""
    directions: tuple[tuple[str, Direction], ...] = (
        ("strided", "training forward"),
        ("strided", "input gradient"),
        ("strided-weight-gradient", "weight gradient"),
    )
    for group, direction in directions:
        for batch, channels, size in STRIDED:
            narrow, wide = (batch, channels, size), (batch, 2 * channels, size // 2)
            yield convolution(group, DOWNSAMPLE4X4, narrow, 2 * channels, direction=direction)
            yield convolution(group, TRANSPOSE4X4, wide, channels, direction=direction)


def _odd() -> Iterator[Workload]:
    """Sizes that are no multiple of a tile, NCHW inputs, and one thread."""
    odd = partial(convolution, "odd")
    for shape in ((1, 96, 57), (16, 96, 33), (1, 160, 33), (16, 20, 57), (64, 20, 33)):
        yield odd(CONV3X3, shape)
    yield odd(CONV3X3, (1, 96, 57), 160)
    yield odd(CONV3X3, (1, 128, 57), layout="nchw")
    for shape in ((1, 96, 33), (16, 20, 33)):
        yield odd(UPSAMPLE, shape)
    gradients: tuple[Direction, ...] = ("input gradient", "weight gradient")
    for direction in gradients:
        for shape in ((16, 96, 33), (1, 160, 57), (64, 20, 33)):
            yield odd(CONV3X3, shape, direction=direction)
    for op in DOWNSAMPLE3X3:
        for shape in ((1, 96, 57), (16, 160, 33)):
            yield odd(op, shape)
    every: tuple[Direction, ...] = ("training forward", *gradients)
    for op in (DOWNSAMPLE4X4, TRANSPOSE4X4):
        for direction in every:
            yield odd(op, (16, 20, 33), 96, direction=direction)
    yield odd(CONV3X3, (1, 128, 128), threads=1)
    yield odd(UPSAMPLE, (1, 64, 64), threads=1)
    for direction in gradients:
        yield odd(CONV3X3, (8, 64, 64), direction=direction, threads=1)
    for op in (DOWNSAMPLE4X4, TRANSPOSE4X4):
        for direction in every:
            yield odd(op, (64, 64, 16), direction=direction, threads=1)


def convolution(
    group: str,
    op: Convolution,
    shape: Shape,
    channels_out: int | None = None,
    *,
    direction: Direction = "forward",
    precision: Literal["high", "highest"] = "high",
    layout: Layout = "channels_last",
    threads: int | None = None,
) -> Workload:
    """A row of a convolution.

    Args:
        group: the group whose targets it counts for.
        op: the convolution.
        shape: batch, channels and size of the square input.
        channels_out: None: as many as the input has.
        direction: forward or a gradient.
        precision: the precision tier.
        layout: of our inputs.
        threads: number of CPU threads; None: torch's current one.
    """
    batch, channels, size = shape
    out = channels if channels_out is None else channels_out
    channel_text = f"{channels}" if out == channels else f"{channels}->{out}"
    work = of_op(
        group,
        replace(op.cases, ours=op.ours(precision)),
        ConvShape(batch, channels, out, size, size),
        direction,
        case=f"{op.label}{batch} x {channel_text} x {size}px",
        floor=conv_floor(op.op, torch.float32, precision),
        images=True,
        options=op.options(precision),
        layout=layout,
        threads=threads,
    )
    wanted = {"input gradient": "x", "weight gradient": "weight"}.get(direction)
    if wanted is not None:
        eager = partial(op.eager_gradient, wanted)
        work = replace(work, eager=eager, ours=partial(op.our_gradient, wanted, precision))
    return work if precision == "high" else replace(work, direction=f"{direction}, {precision}")


def group_norm(
    group: str, shape: tuple[int, int, int, int], layout: Layout, direction: str
) -> Workload:
    """A row of GroupNorm + SiLU: ``direction`` is forward or forward+backward."""
    groups = {"groups": group_norm_silu.groups(shape[1])}
    cases = NORM["group_norm_silu"]
    return of_op(group, cases, shape, direction, images=True, layout=layout, options=groups)
