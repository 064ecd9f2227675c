"""Encoding and decoding of any size within a memory bound, exactly.

A network is a chain of steps (``vaekernels.nn.layer_chain``), and what lies between two steps is a
value. A :class:`Plan` says which values are kept whole; from one kept value to the next the image
is computed tile by tile, each with the border of pixels that its convolutions read. What stands in
the way of exact tiles is GroupNorm, whose mean and variance are those of the whole image: for each
normalisation between two kept values the tiles are run once as far as its input, and their
statistics are merged in float64. So time is paid for memory: the fewer values are kept, the more
is computed again. Attention reads its whole input, for a chunk of pixels at a time.
"""

from __future__ import annotations

from vaekernels.tiling.memory import MemoryModel, parse_bytes
from vaekernels.tiling.plan import Plan, Segment, make_plan
from vaekernels.tiling.run import run_plan

__all__ = ["MemoryModel", "Plan", "Segment", "make_plan", "parse_bytes", "run_plan"]
