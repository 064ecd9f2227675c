"""The demonstration: train on real digits, show what came out and what it gained."""

from __future__ import annotations

from vaekernels.demo.parity import ParityError
from vaekernels.demo.pipeline import run
from vaekernels.demo.settings import Settings

__all__ = ["ParityError", "Settings", "run"]
