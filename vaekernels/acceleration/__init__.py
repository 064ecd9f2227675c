"""Other people's models on this package's ops: ``vk.accelerate``.

A module's forward is followed once, with symbols, and chains of layers in it become single ops; its
class is then exchanged for one with that forward. ``ARCHITECTURE.md`` tells the story.
"""

from __future__ import annotations

from vaekernels.acceleration.calls import LayerCall
from vaekernels.acceleration.explaining import explain_model
from vaekernels.acceleration.handle import Handle, accelerate
from vaekernels.acceleration.report import LayerReport, Report
from vaekernels.acceleration.verification import Difference

__all__ = [
    "Difference",
    "Handle",
    "LayerCall",
    "LayerReport",
    "Report",
    "accelerate",
    "explain_model",
]
