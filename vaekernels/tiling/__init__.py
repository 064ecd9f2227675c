"""Exact encoding and decoding of images of any size within a memory bound.

A network is a chain of steps (``vaekernels.nn.layer_chain``); the tensor between two steps is
called a value. A :class:`Plan` selects the values that are stored as a whole. From one stored value
to the next the image is computed tile by tile, each tile with the border of pixels that its
convolutions read. GroupNorm uses the mean and variance of the whole image: for each normalisation
between two stored values the tiles are computed once up to its input, and their statistics are
merged in float64. This trades time for memory: the fewer values are stored, the more is recomputed.
Attention depends on its whole input and is computed for one chunk of pixels at a time.
"""

from __future__ import annotations

from vaekernels.tiling.memory import MemoryModel, parse_bytes
from vaekernels.tiling.plan import Plan, Segment, make_plan
from vaekernels.tiling.run import run_plan

__all__ = ["MemoryModel", "Plan", "Segment", "make_plan", "parse_bytes", "run_plan"]
