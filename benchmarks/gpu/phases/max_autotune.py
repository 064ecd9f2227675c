"""Ours against torch.compile in its mode max-autotune; only by name."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.phase import Context, Row
from benchmarks.gpu.phases.compiled import decoding


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    yield from context.each(
        ["max-autotune"],
        lambda mode: f"decode 512 b1, {mode}",
        lambda mode, seconds: decoding(context, seconds, mode),
        most=6.0,
        start=30.0,
    )
