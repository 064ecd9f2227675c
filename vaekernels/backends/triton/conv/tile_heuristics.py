"""Tiles by shape: the rule for what was not measured (``autotune_table.py``)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch

from vaekernels.backends.triton.launch_grid import next_power_of_2

# Of the filters' gradient: programs that fill a device, and the rows that are worth one.
GRADIENT_PROGRAMS = 264
SPLIT_ROWS = 512
NARROWEST = 64  # channels: fewer leave the matrix units of sm_90 idle
CHUNK = 4096  # rows that are summed in one chain; the sums of chains are added apart


@dataclass(frozen=True)
class Tile:
    """What one program computes, and how.

    Attributes:
        rows: cells, at most ``padded_images.TILE_ROWS``.
        columns: output channels.
        depth: of a step of the sum, at most; a step lies within one tap.
        warps: that share it.
        stages: of the pipeline, steps whose operands are in shared memory.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Key:
    """What a tile is found by.

    Attributes:
        architecture: 90 for sm_90.
        factors: what is multiplied, as :func:`factors_of` has it.
        taps: samples that a result sums, in both directions.
        inputs: channels, rounded up to 16.
        outputs: channels.
        rows: cells of all images and phases, rounded up to a power of two.
        epilogue: a residual or statistics are there.
    """

    architecture: int
    factors: str
    taps: int
    inputs: int
    outputs: int
    rows: int
    epilogue: bool


# Of 2-byte numbers, the best of a program's work to its traffic first.
HALF = (
    Tile(128, 256, 64, 8, 3),
    Tile(128, 128, 64, 8, 4),
    Tile(128, 64, 64, 8, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 32, 64, 4, 4),
    Tile(64, 16, 64, 4, 4),
)
# A step of tf32 has as many bytes; 256 columns of float32 do not fit into the registers. Warps are
# those with which no architecture needs a stack.
TF32 = (
    Tile(128, 128, 32, 8, 4),
    Tile(128, 64, 32, 4, 4),
    Tile(64, 64, 32, 8, 4),
    Tile(64, 32, 32, 4, 4),
    Tile(64, 16, 32, 4, 4),
)
# float32 is split into three products, or computed without matrix units.
SINGLE = (Tile(64, 64, 32, 8, 3), Tile(64, 32, 32, 4, 4), Tile(64, 16, 32, 4, 3))
TILES = {"bfloat16": HALF, "float16": HALF, "tf32": TF32, "float32": SINGLE}
WASTE = 4 / 3  # of columns that a tile computes, to those that are there


@functools.cache
def tile_of(key: Key, programs: int) -> Tile:
    """The tile for a product with ``key``: the first that makes programs enough, or the smallest.

    Args:
        key: of the product.
        programs: that fill the device.
    """
    tiles = tiles_of(key)
    for tile in tiles:
        if -(-key.rows // tile.rows) * -(-key.outputs // tile.columns) >= programs:
            return tile
    return tiles[-1]


def tiles_of(key: Key) -> list[Tile]:
    """Those that waste few columns of a product with ``key``, whatever its rows."""
    widest = _widest(key)
    tiles = [tile for tile in TILES[key.factors] if tile.columns <= widest]
    computed = {tile: -(-key.outputs // tile.columns) * tile.columns for tile in tiles}
    bound = max(WASTE * key.outputs, min(computed.values()))
    return [
        replace(tile, depth=divisor(key.inputs, tile.depth))
        for tile in tiles
        if computed[tile] <= bound
    ]


def _widest(key: Key) -> int:
    """Columns whose sums leave registers for what else a program holds."""
    if key.outputs % 16 != 0:
        return 32  # pixels are not aligned: each result is stored by an address of its own
    # A residual or statistics, or pointers to the operands where there are no descriptors.
    return 128 if key.epilogue or key.architecture < 90 else 256


@dataclass(frozen=True)
class GradientTile:
    """What one program of the filters' gradient computes.

    Attributes:
        rows: cells of a step.
        inputs: channels of the windows.
        outputs: channels of the other side.
        warps: that share it.
        stages: of the pipeline.
    """

    rows: int
    inputs: int
    outputs: int
    warps: int
    stages: int


# The largest by what is multiplied.
GRADIENT_TILES = {
    "bfloat16": GradientTile(64, 128, 128, 8, 3),
    "float16": GradientTile(64, 128, 128, 8, 3),
    "tf32": GradientTile(32, 128, 128, 8, 3),
    "float32": GradientTile(32, 64, 64, 8, 3),
}


def gradient_tile_of(factors: str, depth: int, columns: int) -> GradientTile:
    """The tile for ``depth`` by ``columns`` channels; may be wider than they are.

    Args:
        factors: as :func:`factors_of` has them.
        depth: channels of the windows.
        columns: channels of the other side.
    """
    largest = GRADIENT_TILES[factors]
    inputs = max(NARROWEST, divisor(depth, largest.inputs))
    outputs = max(NARROWEST, divisor(columns, largest.outputs))
    # Half the warps have registers for a quarter of the sums, not for half of them.
    quarter = 4 * inputs * outputs == largest.inputs * largest.outputs
    warps = largest.warps // 2 if quarter else largest.warps
    return replace(largest, inputs=inputs, outputs=outputs, warps=warps)


def splits_of(rows: int, programs: int) -> int:
    """Parts of ``rows`` that are summed apart, where ``programs`` sum one part.

    A function of the shapes alone, as the order of the sum is.
    """
    return max(1, min(GRADIENT_PROGRAMS // programs, rows // SPLIT_ROWS))


def divisor(extent: int, largest: int) -> int:
    """The largest power of two, at most ``largest``, that divides ``extent``."""
    return min(largest, extent & -extent)


def bucket(rows: int) -> int:
    """``rows`` as a key has them: rounded up to a power of two."""
    return next_power_of_2(rows)


def input_precision(dtype: torch.dtype, precision: str) -> str:
    """How ``tl.dot`` multiplies numbers of ``dtype`` in a tier, whatever ``torch.backends`` says.

    Of float32: "high" promises 2e-5, which one tf32 product misses by far and three keep; one is
    what "medium" is; "highest" is plain float32. Products of 16 bits are exact in every tier.
    """
    if dtype != torch.float32:
        return "ieee"
    return {"medium": "tf32", "high": "tf32x3", "highest": "ieee"}[precision]


def factors_of(dtype: torch.dtype, precision: str) -> str:
    """What a convolution multiplies: the dtype by its name, but "tf32" where it rounds to that."""
    if input_precision(dtype, precision) == "tf32":
        return "tf32"
    return str(dtype).removeprefix("torch.")
