"""Selects the algorithm of a convolution: our tap-GEMM, with its tile, or cuDNN.

A measurement decides (``autotune_table.py``). Where nothing was measured a rule decides, which is a
guess. It prefers our product where the pass that pads also normalises, where the epilogue saves a
pass of statistics or a 1x1 convolution, and where cuDNN would need the upsampled image; elsewhere
cuDNN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vaekernels.backends.triton.conv.autotune_table import CUDNN, TAP_GEMM, Key, measured
from vaekernels.backends.triton.conv.tile_heuristics import GradientTile, Tile


@dataclass(frozen=True)
class Choice:
    """How one direction of a convolution is computed.

    Attributes:
        algorithm: one of ``autotune_table.ALGORITHMS``.
        tile: of our product; None: the one that tile_heuristics.py finds.
        reason: why.
    """

    algorithm: str
    tile: Any = None  # a Tile; a GradientTile where the direction is "weight"
    reason: str = "asked for"


_forced: ContextVar[Choice | None] = ContextVar("vaekernels_conv_algorithm", default=None)


@contextlib.contextmanager
def force_algorithm(algorithm: str, tile: Tile | GradientTile | None = None) -> Iterator[None]:
    """Compute every convolution inside the block by one algorithm, for measurements and tests.

    In this thread alone, but for the backwards of what is computed here, whatever thread of
    PyTorch's runs them (``backends/definitions.py``).
    """
    token = _forced.set(Choice(algorithm, tile))
    try:
        yield
    finally:
        _forced.reset(token)


def choose(key: Key) -> Choice:
    """The algorithm for ``key``."""
    forced = _forced.get()
    if forced is not None:
        kind = GradientTile if key.direction == "weight" else Tile
        return forced if isinstance(forced.tile, kind) else Choice(forced.algorithm)
    found = measured().get(key)
    if found is not None:
        reason = f"table: the fastest on sm_{key.architecture}, {found.path.name}"
        return Choice(found.entry.algorithm, found.entry.tile, reason)
    return _rule(key)


def _rule(key: Key) -> Choice:
    if key.architecture == 0:
        return Choice(TAP_GEMM, reason="rule: the interpreter is there to prove the kernels")
    if key.dtype == "float32":
        return Choice(TAP_GEMM, reason="rule: cuDNN's products of float32 would be tf32")
    for extra, gain in _GAINS.items():
        if extra in key.epilogue.split("+"):
            return Choice(TAP_GEMM, reason=f"rule, not measured: {gain}")
    if key.op == "upsample_conv3x3":
        return Choice(TAP_GEMM, reason="rule, not measured: no large image, 4 of 9 products")
    return Choice(CUDNN, reason="rule, not measured: nothing around the product saves a pass")


_GAINS = {
    "norm": "padding is a part of the pass that normalises",
    "projection": "the residual's 1x1 convolution is one more tap",
    "statistics": "the epilogue saves the pass of the next statistics",
}
