"""The two layers of a DCGAN-like VAE, each with its activation in the same pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekernels.ops import conv_transpose4x4, downsample_conv4x4
from vaekernels.ops._conv import ACTIVATIONS
from vaekernels.ops._uses import OpUse


class DownsampleConv4x4(nn.Conv2d):
    """``nn.Conv2d(..., kernel_size=4, stride=2, padding=1)`` and an activation, in one op.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        bias: whether there is one.
        activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``.
        negative_slope: of leaky_relu.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: ``activation`` is none of these.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        negative_slope: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=4,
            stride=2,
            padding=1,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.activation = _checked("DownsampleConv4x4", activation)
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """(B, Ci, H, W) to (B, Co, H // 2, W // 2)."""
        return downsample_conv4x4(
            x,
            self.weight,
            self.bias,
            activation=self.activation,
            negative_slope=self.negative_slope,
        )

    def op_uses(self) -> list[OpUse]:
        """One."""
        return [OpUse("downsample_conv4x4", (self,))]

    def extra_repr(self) -> str:
        """With the activation."""
        return f"{super().extra_repr()}, activation={self.activation}"


class ConvTranspose4x4(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d(..., kernel_size=4, stride=2, padding=1)`` and an activation, in one op.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        bias: whether there is one.
        activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``.
        negative_slope: of leaky_relu.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: ``activation`` is none of these.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        negative_slope: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=4,
            stride=2,
            padding=1,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.activation = _checked("ConvTranspose4x4", activation)
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # torch's takes a size too
        """(B, Ci, H, W) to (B, Co, 2H, 2W)."""
        return conv_transpose4x4(
            x,
            self.weight,
            self.bias,
            activation=self.activation,
            negative_slope=self.negative_slope,
        )

    def op_uses(self) -> list[OpUse]:
        """One."""
        return [OpUse("conv_transpose4x4", (self,))]

    def extra_repr(self) -> str:
        """With the activation."""
        return f"{super().extra_repr()}, activation={self.activation}"


def _checked(layer: str, activation: str | None) -> str | None:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{layer}: activation must be None, 'relu', 'silu' or 'leaky_relu'; got {activation!r}"
        )
    return activation
