"""Other people's models on this package's ops: ``vk.accelerate``.

A module's forward is followed once, with symbols, and chains of layers in it become single ops; its
class is then exchanged for one with that forward. ``ARCHITECTURE.md`` tells the story.
"""

from __future__ import annotations

from vaekernels.integrations.accelerate.api import Handle, accelerate
from vaekernels.integrations.accelerate.call_recorder import LayerCall
from vaekernels.integrations.accelerate.layer_report import explain_model
from vaekernels.integrations.accelerate.report import LayerReport, Report
from vaekernels.integrations.accelerate.verification import Difference

__all__ = [
    "Difference",
    "Handle",
    "LayerCall",
    "LayerReport",
    "Report",
    "accelerate",
    "explain_model",
]
