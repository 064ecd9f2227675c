"""What was measured: which algorithm computes which convolution fastest, as a file.

Two files are read, once: the one that is shipped, ``autotune_table.json``, and the user's, whose
entries come first. The user's is the one that ``VAEKERNELS_TUNING`` names, or, if it is there,
``tuning.json`` in the cache directory. ``vaekernels tune`` writes it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from vaekernels.backends.triton.conv.padded_images import TILE_CHANNELS, TILE_ROWS
from vaekernels.backends.triton.conv.tile_heuristics import GradientTile, Tile

SCHEMA = 1
SHIPPED = Path(__file__).with_name("autotune_table.json")
VARIABLE = "VAEKERNELS_TUNING"

TAP_GEMM, CUDNN = "tap_gemm", "cudnn"
ALGORITHMS = (TAP_GEMM, CUDNN)
DIRECTIONS = ("forward", "input", "weight")
DTYPES = ("bfloat16", "float16", "tf32", "float32")
# What a kernel does beside the product, in the order in which a key names it.
EXTRAS = ("norm", "residual", "projection", "statistics")


@dataclass(frozen=True)
class Key:
    """What a measurement is known by; the op says taps and stride.

    Attributes:
        architecture: 90 for sm_90; 0 in Triton's interpreter.
        op: ``"conv3x3"`` and the like.
        direction: ``"forward"``, or the gradient of the ``"input"`` or the ``"weight"``.
        dtype: of the images and filters; ``"tf32"``: float32 in the tier "medium".
        inputs: channels of x.
        outputs: channels of y.
        rows: pixels of y in the batch, rounded up to a power of two.
        epilogue: what the call does beside the product: some of ``EXTRAS``, joined by ``+``.
    """

    architecture: int
    op: str
    direction: str
    dtype: str
    inputs: int
    outputs: int
    rows: int
    epilogue: str = ""


@dataclass(frozen=True)
class Entry:
    """What was measured for a key.

    Attributes:
        algorithm: the fastest, one of ``ALGORITHMS``.
        tile: of ``"tap_gemm"``; None otherwise.
        milliseconds: candidate -> median time, for who reads the file.
    """

    algorithm: str
    tile: Tile | GradientTile | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """An entry, and the file that it is from."""

    entry: Entry
    path: Path


def user_path() -> Path:
    """Where the user's table is, or would be."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vaekernels" / "tuning.json"


@functools.cache
def measured() -> dict[Key, Found]:
    """The entries of both files.

    Raises:
        ValueError: a file is no table of this schema; the error names it.
        FileNotFoundError: the file that ``VAEKERNELS_TUNING`` names is not there.
    """
    paths, user = [SHIPPED], user_path()
    if os.environ.get(VARIABLE) or user.exists():
        paths.append(user)
    return {key: Found(entry, path) for path in paths for key, entry in read(path).items()}


def read(path: Path) -> dict[Key, Entry]:
    """The entries of one file; raises as :func:`measured`."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}; got {document['schema']!r}")
        return dict(map(_parsed, document["entries"]))
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a table of tuned convolutions: {_message(error)}") from error


def encoded(entries: Mapping[Key, Entry]) -> bytes:
    """A file's content, a line for each entry, in order."""
    lines = [json.dumps(_plain(key, entry)) for key, entry in sorted(entries.items(), key=_order)]
    joined = ",\n  ".join(lines)
    listed = f"[\n  {joined}\n ]" if lines else "[]"
    return f'{{\n "schema": {SCHEMA},\n "entries": {listed}\n}}\n'.encode()


def epilogue_of(extras: Iterable[str]) -> str:
    """As a key has it."""
    given = set(extras)
    return "+".join(extra for extra in EXTRAS if extra in given)


def _order(item: tuple[Key, Entry]) -> tuple[Any, ...]:
    return astuple(item[0])


def _plain(key: Key, entry: Entry) -> dict[str, Any]:
    tile = {} if entry.tile is None else {"tile": list(astuple(entry.tile))}
    times = {"milliseconds": dict(entry.milliseconds)} if entry.milliseconds else {}
    return {**asdict(key), "algorithm": entry.algorithm, **tile, **times}


def _parsed(plain: Any) -> tuple[Key, Entry]:
    plain = dict(plain)
    key = Key(**{each.name: plain.pop(each.name) for each in fields(Key)})
    for name, kind in (("architecture", int), ("inputs", int), ("outputs", int), ("rows", int)):
        if not isinstance(getattr(key, name), kind) or getattr(key, name) < 1:
            raise ValueError(f"{name} must be a positive integer; got {getattr(key, name)!r}")
    for name, allowed in (("direction", DIRECTIONS), ("dtype", DTYPES)):
        if getattr(key, name) not in allowed:
            raise ValueError(
                f"{name} must be one of {', '.join(allowed)}; got {getattr(key, name)!r}"
            )
    extras = key.epilogue.split("+") if key.epilogue else []
    if epilogue_of(extras) != key.epilogue:
        raise ValueError(f"epilogue must be some of {'+'.join(EXTRAS)}; got {key.epilogue!r}")
    algorithm, tile = plain.pop("algorithm"), plain.pop("tile", None)
    if algorithm not in ALGORITHMS or (tile is None) != (algorithm == CUDNN):
        raise ValueError(
            f"algorithm must be tap_gemm with a tile, or cudnn; got {algorithm!r}, tile {tile!r}"
        )
    if algorithm == CUDNN and key.dtype == "float32":
        raise ValueError("cudnn is no algorithm of float32, whose products are not tf32")
    times = {str(name): float(time) for name, time in plain.pop("milliseconds", {}).items()}
    if plain:
        raise ValueError(f"unknown field {next(iter(plain))!r}")
    return key, Entry(algorithm, None if tile is None else _tile(key.direction, tile), times)


def _tile(direction: str, numbers: Any) -> Tile | GradientTile:
    kind = GradientTile if direction == "weight" else Tile
    if len(numbers) != len(fields(kind)) or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"tile must be {len(fields(kind))} integers; got {numbers!r}")
    *sides, warps, stages = numbers
    if not all(16 <= side <= TILE_CHANNELS and side & (side - 1) == 0 for side in sides):
        raise ValueError(
            f"a tile's sides must be powers of two, 16 to {TILE_CHANNELS}; got {numbers!r}"
        )
    if sides[0] > TILE_ROWS or warps not in (1, 2, 4, 8, 16) or not 1 <= stages <= 8:
        raise ValueError(
            f"a tile has at most {TILE_ROWS} rows, 1 to 16 warps and 1 to 8 stages; got {numbers!r}"
        )
    return kind(*numbers)


def _message(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
