"""``vk.upsample_conv3x3`` on Triton."""

from __future__ import annotations

from vaekernels.backends.triton.conv.aot_variants import conv_configs, every_tile
from vaekernels.backends.triton.conv.forms import UPSAMPLE
from vaekernels.backends.triton.conv.unfused import implement

OP = "upsample_conv3x3"
AOT_CONFIGS = [*conv_configs(OP, UPSAMPLE), *every_tile(OP, UPSAMPLE, "silu", "epilogue")]

implement(OP)
