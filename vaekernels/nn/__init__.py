"""Layers with PyTorch's parameters, initialisation and state dicts, computed by the ops."""

from __future__ import annotations

from vaekernels.nn.attention import AttentionBlock
from vaekernels.nn.autoencoder import Decoder, Encoder
from vaekernels.nn.group_norm_silu import GroupNormSiLU
from vaekernels.nn.quantizers.base import Quantized
from vaekernels.nn.quantizers.fsq import FSQ
from vaekernels.nn.resample import Downsample, Upsample
from vaekernels.nn.resampling_conv import ConvTranspose4x4, DownsampleConv4x4
from vaekernels.nn.resnet import ResnetBlock
from vaekernels.nn.taesd import TinyBlock, TinyDecoder, TinyEncoder

__all__ = [
    "FSQ",
    "AttentionBlock",
    "ConvTranspose4x4",
    "Decoder",
    "Downsample",
    "DownsampleConv4x4",
    "Encoder",
    "GroupNormSiLU",
    "Quantized",
    "ResnetBlock",
    "TinyBlock",
    "TinyDecoder",
    "TinyEncoder",
    "Upsample",
]
