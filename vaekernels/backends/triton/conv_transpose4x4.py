"""``vk.conv_transpose4x4`` on Triton."""

from __future__ import annotations

from vaekernels.backends.triton.conv.aot_variants import conv_configs
from vaekernels.backends.triton.conv.forms import UP4X4
from vaekernels.backends.triton.conv.unfused import implement

OP = "conv_transpose4x4"
AOT_CONFIGS = conv_configs(OP, UP4X4)

implement(OP, output_dim=1)
