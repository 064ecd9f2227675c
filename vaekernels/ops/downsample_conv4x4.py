"""``vk.downsample_conv4x4``: a 4x4 convolution with stride 2."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends.reference import downsample_conv4x4 as reference
from vaekernels.ops._conv import check_conv, conv_docstring, define_conv, empty_result, run_conv

OP = "downsample_conv4x4"


def _fake(x: Tensor, weight: Tensor, *others: object) -> Tensor:
    return empty_result(x, weight.shape[0], x.shape[2] // 2, x.shape[3] // 2)


define_conv(reference.downsample_conv4x4, "Tensor x, Tensor weight, Tensor? bias", _fake)


@conv_docstring
def downsample_conv4x4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    negative_slope: float = 0.01,
    precision: str | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Convolve with 4x4 taps, stride 2 and padding 1: the downsampling of DCGAN's encoders.

    .. math::
        y_{ij} = \phi\Big(b + \sum_{k,l} w_{kl} \, x_{2i + k - 1, 2j + l - 1}\Big)

    Equivalent PyTorch::

        y = F.conv2d(x, weight, bias, stride=2, padding=1)
        y = F.silu(y)  # or relu, leaky_relu, nothing

    Args:
        x: (N, Ci, H, W), any strides; channels_last is read fastest.
        weight: (Co, Ci, 4, 4).
        bias: (Co,) or None.
        %(options)s

    Returns:
        (N, Co, H // 2, W // 2) in the dtype of ``x``; channels_last on the cpu and triton backends.
        Gradients flow to ``x``, ``weight`` and ``bias``.

    Raises:
        %(raises)s

    %(precision)s

    Paper: A. Radford, L. Metz, S. Chintala, "Unsupervised representation learning with deep
    convolutional generative adversarial networks", ICLR 2016.
    """
    check_conv(OP, x, weight, bias, kernel=4, smallest=2)
    return run_conv(OP, (x, weight, bias), (), activation, negative_slope, precision, backend)
