"""Speed against eager PyTorch: interleaved in one process, medians, checked against float64."""

from __future__ import annotations

from vaekernels.utils.extras import needs_extra

with needs_extra("bench", "vaekernels.bench"):
    import rich  # noqa: F401
