"""The two layers of a DCGAN-like VAE, each with its activation in the same pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vaekernels.backends.reference._activate import activate
from vaekernels.nn.expected_layers import LEAKY_RELU, RELU, SILU, is_form
from vaekernels.nn.unmodified import convolution_geometry, extends
from vaekernels.ops import conv_transpose4x4, downsample_conv4x4
from vaekernels.ops._uses import OpUse

_ACTIVATIONS = {None: None, "relu": RELU, "silu": SILU, "leaky_relu": LEAKY_RELU}


class _ResamplingConv4x4(nn.modules.conv._ConvNd):
    """A 4x4 convolution with stride 2 and padding 1, and an activation.

    Comes before PyTorch's class among the bases of a layer.

    Attributes:
        op: name of the op.
        kind: PyTorch's class.
        run: the op.
    """

    op: ClassVar[str]
    kind: ClassVar[Any]
    run: ClassVar[Callable[..., Tensor]]

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
        layer = type(self).__name__
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"{layer}: activation must be None, 'relu', 'silu' or 'leaky_relu'; "
                f"got {activation!r}"
            )
        if not isinstance(negative_slope, (int, float)):
            kind = type(negative_slope).__name__
            raise TypeError(f"{layer}: negative_slope must be a number; got {kind}")
        geometry: Any = {"kernel_size": 4, "stride": 2, "padding": 1}
        self.kind.__init__(
            self, in_channels, out_channels, **geometry, bias=bias, device=device, dtype=dtype
        )
        self.activation = activation
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        if self._runs_on_op():
            options = {"activation": self.activation, "negative_slope": self.negative_slope}
            return type(self).run(x, self.weight, self.bias, **options)
        return activate(self.kind.forward(self, x), self.activation, self.negative_slope)

    def op_uses(self) -> list[OpUse]:
        """The one op of the layer."""
        return [OpUse(self.op, (self,))]

    def extra_repr(self) -> str:
        """That of PyTorch's layer, with the activation."""
        return f"{super().extra_repr()}, activation={self.activation}"

    def _runs_on_op(self) -> bool:
        """Whether the op computes what PyTorch's layer and activation do in their current state."""
        activation = _ACTIVATIONS[self.activation]
        return (
            convolution_geometry(self) == (4, 2, 1)  # type: ignore[arg-type]
            and extends(self, self.kind)
            and (activation is None or is_form(activation))
        )


class DownsampleConv4x4(_ResamplingConv4x4, nn.Conv2d):
    """``nn.Conv2d(..., kernel_size=4, stride=2, padding=1)`` and an activation, in one op.

    Maps (B, Ci, H, W) to (B, Co, H // 2, W // 2). Where an attribute such as ``padding_mode`` was
    changed, PyTorch's own layer runs.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        bias: whether the layer has a bias.
        activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``.
        negative_slope: slope of leaky_relu for negative numbers.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError: ``negative_slope`` is not a number.
        ValueError: ``activation`` is none of these.
    """

    op = "downsample_conv4x4"
    kind = nn.Conv2d
    run = staticmethod(downsample_conv4x4)


class ConvTranspose4x4(_ResamplingConv4x4, nn.ConvTranspose2d):  # type: ignore[misc]
    """``nn.ConvTranspose2d(..., kernel_size=4, stride=2, padding=1)`` and an activation, in one op.

    Maps (B, Ci, H, W) to (B, Co, 2H, 2W). Where an attribute such as ``stride`` was changed,
    PyTorch's own layer runs.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        bias: whether the layer has a bias.
        activation: None, ``"relu"``, ``"silu"`` or ``"leaky_relu"``.
        negative_slope: slope of leaky_relu for negative numbers.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError: ``negative_slope`` is not a number.
        ValueError: ``activation`` is none of these.
    """

    op = "conv_transpose4x4"
    kind = nn.ConvTranspose2d
    run = staticmethod(conv_transpose4x4)
