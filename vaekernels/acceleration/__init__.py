"""Other people's models on this package's ops: ``vk.accelerate``.

A module's forward is followed once, with symbols, and chains of layers in it become single ops; its
class is then exchanged for one with that forward. ``ARCHITECTURE.md`` tells the story.
"""

from __future__ import annotations

from vaekernels.acceleration.handle import Handle, accelerate, explain_model
from vaekernels.acceleration.report import LayerReport, Report
from vaekernels.acceleration.verification import Difference

__all__ = ["Difference", "Handle", "LayerReport", "Report", "accelerate", "explain_model"]
