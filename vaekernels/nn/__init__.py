"""Layers: torch's parameters, initialisation and state dicts, with one of our ops as forward."""

from __future__ import annotations

from vaekernels.nn.strided import ConvTranspose4x4, DownsampleConv4x4

__all__ = ["ConvTranspose4x4", "DownsampleConv4x4"]
