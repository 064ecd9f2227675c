"""``vk.upsample_conv3x3``: nearest-neighbour upsampling and a 3x3 convolution."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends.reference import upsample_conv3x3 as reference
from vaekernels.ops._conv import check_conv, conv_docstring, define_conv, empty_result, run_conv

OP = "upsample_conv3x3"


def _fake(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return empty_result(x, weight.shape[0], 2 * x.shape[2], 2 * x.shape[3])


define_conv(reference.upsample_conv3x3, "Tensor x, Tensor weight, Tensor? bias", _fake)


@conv_docstring
def upsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    negative_slope: float = 0.01,
    precision: str | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Upsample twice by nearest neighbour and convolve with 3x3 taps, without the large image.

    .. math::
        y = \phi(w * \mathrm{up}(x) + b), \qquad \mathrm{up}(x)_{ij} =
        x_{\lfloor i/2 \rfloor, \lfloor j/2 \rfloor}

    Equivalent PyTorch::

        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        y = F.conv2d(x, weight, bias, padding=1)
        y = F.silu(y)  # or relu, leaky_relu, nothing

    Args:
        x: (N, Ci, H, W), any strides; channels_last is read fastest.
        weight: (Co, Ci, 3, 3).
        bias: (Co,) or None.
        %(options)s

    Returns:
        (N, Co, 2H, 2W) in the dtype of ``x``; channels_last on the cpu and triton backends.
        Gradients flow to ``x``, ``weight`` and ``bias``.

    Raises:
        %(raises)s

    %(precision)s

    Paper: A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill 2016.
    """
    check_conv(OP, x, weight, bias, kernel=3)
    return run_conv(OP, (x, weight, bias), (), activation, negative_slope, precision, backend)
