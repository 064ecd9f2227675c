"""Traceable forwards of two diffusers blocks, without checks of shapes that cannot be traced.

They are traced in place of the originals and read the same attributes, so the same guards apply;
with other values of these the originals run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vaekernels.integrations.accelerate.guards import Untraceable
from vaekernels.integrations.accelerate.patterns import ASYMMETRIC
from vaekernels.nn.unmodified import original_class


def _upsample(self: Any, hidden_states: Tensor, output_size: None) -> Tensor:
    # The original makes large batches contiguous, to work around a bug of old nearest kernels.
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


_TRACEABLE_FORWARDS: dict[str, Callable[..., Any]] = {
    "diffusers.models.upsampling.Upsample2D.forward": _upsample,
    "diffusers.models.downsampling.Downsample2D.forward": _downsample,
}


def forward_to_trace(module: Any) -> Callable[..., Any]:
    """The forward of the module's class, or its traceable equivalent."""
    forward = original_class(module).forward
    name = f"{forward.__module__}.{getattr(forward, '__qualname__', '')}"
    return _TRACEABLE_FORWARDS.get(name, forward)


def ignores_layout(module: Any) -> bool:
    """Whether ``module`` supports channels_last, even if its forward cannot be traced.

    diffusers documents this of its blocks. Its models, whose results users see, do not count.
    """
    kind = original_class(module)
    blocks = kind.__module__.startswith("diffusers.models.")
    return blocks and not any(base.__name__ == "ModelMixin" for base in kind.__mro__)
