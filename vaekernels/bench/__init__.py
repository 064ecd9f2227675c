"""Measurements against eager PyTorch: ratios, interleaved in one process, medians."""

from __future__ import annotations

from vaekernels.utils.extras import needs_extra

with needs_extra("bench", "vaekernels.bench"):
    import rich  # noqa: F401
