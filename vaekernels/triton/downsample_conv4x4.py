"""``vk.downsample_conv4x4`` on Triton."""

from __future__ import annotations

from vaekernels.triton.conv.configurations import conv_configs
from vaekernels.triton.conv.forms import DOWN4X4
from vaekernels.triton.conv.plain import implement

OP = "downsample_conv4x4"
AOT_CONFIGS = conv_configs(OP, DOWN4X4)

implement(OP)
