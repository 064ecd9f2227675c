"""Datasets of images: the protocol, images in memory, and folders decoded batch by batch."""

from __future__ import annotations

from vaekernels.utils.extras import needs_extra

with needs_extra("train", "vaekernels.data"):
    import PIL  # noqa: F401
    import tqdm  # noqa: F401
