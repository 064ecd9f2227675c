"""``vk.downsample_conv3x3`` on Triton."""

from __future__ import annotations

from vaekernels.backends.triton.conv.aot_variants import conv_configs
from vaekernels.backends.triton.conv.forms import DOWN3X3
from vaekernels.backends.triton.conv.unfused import implement

OP = "downsample_conv3x3"
AOT_CONFIGS = conv_configs(OP, DOWN3X3["asymmetric"])

downsample_conv3x3, downsample_conv3x3_backward = implement(OP)
