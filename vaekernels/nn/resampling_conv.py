"""The two layers of a DCGAN-like VAE, each with its activation in the same pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import LEAKY_RELU, RELU, SILU, is_form
from vaekernels.nn.unmodified import convolution_geometry, extends
from vaekernels.ops import conv_transpose4x4, downsample_conv4x4
from vaekernels.ops._uses import OpUse

_ACTIVATIONS = {None: None, "relu": RELU, "silu": SILU, "leaky_relu": LEAKY_RELU}


class DownsampleConv4x4(nn.Conv2d):
    """``nn.Conv2d(..., kernel_size=4, stride=2, padding=1)`` and an activation, in one op.

    Where an attribute such as ``padding_mode`` was changed, PyTorch's own layer runs.

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
        self.negative_slope = _checked_slope("DownsampleConv4x4", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Ci, H, W) to (B, Co, H // 2, W // 2)."""
        if not _runs_on_op(self, nn.Conv2d):
            return _activate(self, super().forward(x))
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

    Where an attribute such as ``stride`` was changed, PyTorch's own layer runs.

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
        self.negative_slope = _checked_slope("ConvTranspose4x4", negative_slope)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # torch's takes a size too
        """(B, Ci, H, W) to (B, Co, 2H, 2W)."""
        if not _runs_on_op(self, nn.ConvTranspose2d):
            return _activate(self, super().forward(x))
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


def _runs_on_op(
    layer: DownsampleConv4x4 | ConvTranspose4x4, kind: type[nn.Conv2d | nn.ConvTranspose2d]
) -> bool:
    """Whether the op computes what PyTorch's layer and activation do, as both are now."""
    activation = _ACTIVATIONS[layer.activation]
    return (
        convolution_geometry(layer) == (4, 2, 1)
        and extends(layer, kind)
        and (activation is None or is_form(activation))
    )


def _activate(layer: DownsampleConv4x4 | ConvTranspose4x4, y: Tensor) -> Tensor:
    if layer.activation is None:
        return y
    if layer.activation == "leaky_relu":
        return F.leaky_relu(y, layer.negative_slope)
    return F.relu(y) if layer.activation == "relu" else F.silu(y)


def _checked_slope(layer: str, slope: float) -> float:
    if not isinstance(slope, (int, float)):
        raise TypeError(f"{layer}: negative_slope must be a number; got {type(slope).__name__}")
    return slope


def _checked(layer: str, activation: str | None) -> str | None:
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{layer}: activation must be None, 'relu', 'silu' or 'leaky_relu'; got {activation!r}"
        )
    return activation
