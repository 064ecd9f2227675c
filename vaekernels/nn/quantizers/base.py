"""What a quantizer returns, and the check of its input."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaekernels.ops._checks import check_floating


class Quantized(NamedTuple):
    """The result of a quantizer.

    Attributes:
        quantized: the codes, in the shape and dtype of the input. Gradients flow to the input.
        indices: int64, the shape of the input without its channels.
    """

    quantized: Tensor
    indices: Tensor


def check_channels(name: str, x: object, channels: int, dim: int) -> None:
    """``x`` is a floating tensor with so many channels at the dim ``dim``."""
    x = check_floating(name, "x", x)
    if not -x.ndim <= dim < x.ndim or x.shape[dim] != channels:
        raise ValueError(
            f"{name}: x must have {channels} channels at dim {dim}; got shape {tuple(x.shape)}"
        )
