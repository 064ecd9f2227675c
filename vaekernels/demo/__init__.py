"""The demo: train a VAE on real digits, and compare its speed with eager PyTorch."""

from __future__ import annotations

from vaekernels.utils.extras import needs_extra

with needs_extra("demo", "the demo"):
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401

from vaekernels.demo.parity import ParityError
from vaekernels.demo.pipeline import run
from vaekernels.demo.settings import Settings

__all__ = ["ParityError", "Settings", "run"]
