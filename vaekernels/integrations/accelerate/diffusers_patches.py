"""Forwards of well-known modules, without what only concerns shapes and cannot be followed.

Written from what diffusers' modules compute. They are traced instead of the originals, read the
same attributes, and so hold under the same assumptions; for other attributes the originals run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vaekernels.integrations.accelerate.guards import Untraceable
from vaekernels.integrations.accelerate.module_patterns import ASYMMETRIC
from vaekernels.nn.unmodified import original_class


def _upsample(self: Any, hidden_states: Tensor, output_size: None) -> Tensor:
    # The original makes large batches contiguous, for a fault of old nearest kernels.
    usual = self.use_conv and self.interpolate and self.name == "conv"
    if self.norm is not None or self.use_conv_transpose or not usual:
        raise Untraceable("it is not a nearest-2x upsampling and a convolution")
    return self.conv(F.interpolate(hidden_states, scale_factor=2.0, mode="nearest"))


def _downsample(self: Any, hidden_states: Tensor) -> Tensor:
    # The original asserts the number of channels; so does the convolution.
    if self.norm is not None or not self.use_conv:
        raise Untraceable("it is not a convolution with stride 2")
    if self.padding == 0:
        hidden_states = F.pad(hidden_states, ASYMMETRIC)
    return self.conv(hidden_states)


_SUBSTITUTES: dict[str, Callable[..., Any]] = {
    "diffusers.models.upsampling.Upsample2D.forward": _upsample,
    "diffusers.models.downsampling.Downsample2D.forward": _downsample,
}


def forward_to_trace(module: Any) -> Callable[..., Any]:
    """The forward of the module's class, or what stands for it."""
    forward = original_class(module).forward
    name = f"{forward.__module__}.{getattr(forward, '__qualname__', '')}"
    return _SUBSTITUTES.get(name, forward)


def ignores_layout(module: Any) -> bool:
    """Whether ``module`` is made for channels_last too, though its forward cannot be followed.

    diffusers says so of its blocks. Its models, which hand their results to users, are not meant.
    """
    kind = original_class(module)
    blocks = kind.__module__.startswith("diffusers.models.")
    return blocks and not any(base.__name__ == "ModelMixin" for base in kind.__mro__)
