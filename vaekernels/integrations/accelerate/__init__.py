"""``vk.accelerate``: run the layers of any PyTorch model on this package's ops.

A module's forward is traced once, with proxies in place of tensors, and chains of layers in it
become single ops; the class of the module is then replaced by a subclass with that forward.
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
