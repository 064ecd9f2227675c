"""``vk.conv_transpose4x4`` on Triton."""

from __future__ import annotations

from vaekernels.triton.conv.configurations import conv_configs
from vaekernels.triton.conv.forms import UP4X4
from vaekernels.triton.conv.plain import implement

OP = "conv_transpose4x4"
AOT_CONFIGS = conv_configs(OP, UP4X4)

implement(OP, output_dim=1)
