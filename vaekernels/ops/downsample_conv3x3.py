"""``vk.downsample_conv3x3``: a 3x3 convolution with stride 2."""

from __future__ import annotations

from torch import Tensor

from vaekernels.backends.reference import downsample_conv3x3 as reference
from vaekernels.ops._conv import check_conv, conv_docstring, define_conv, empty_result, run_conv

OP = "downsample_conv3x3"
# Padded pixels in each direction, both sides together.
PADDINGS = {"asymmetric": 1, "symmetric": 2}


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, padding: str, *others: object) -> Tensor:
    added = PADDINGS[padding]
    height, width = ((size + added - 3) // 2 + 1 for size in x.shape[2:])
    return empty_result(x, weight.shape[0], height, width)


define_conv(
    reference.downsample_conv3x3, "Tensor x, Tensor weight, Tensor? bias, str padding", _fake
)


@conv_docstring
def downsample_conv3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: str = "asymmetric",
    activation: str | None = None,
    negative_slope: float = 0.01,
    precision: str | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Convolve with 3x3 taps and stride 2: the downsampling of latent diffusion's encoders.

    .. math::
        y_{ij} = \phi\Big(b + \sum_{k,l} w_{kl} \, \bar x_{2i + k, 2j + l}\Big),
        \qquad \bar x = x \text{ padded with zeros}

    Equivalent PyTorch::

        if padding == "asymmetric":
            y = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
        else:
            y = F.conv2d(x, weight, bias, stride=2, padding=1)
        y = F.silu(y)  # or relu, leaky_relu, nothing

    Args:
        x: (N, Ci, H, W), any strides; channels_last is read fastest.
        weight: (Co, Ci, 3, 3).
        bias: (Co,) or None.
        padding: ``"asymmetric"``: a row below and a column to the right, as in the
            encoders of latent diffusion; ``"symmetric"``: one on every side.
        %(options)s

    Returns:
        (N, Co, (H + p - 3) // 2 + 1, (W + p - 3) // 2 + 1), p the 1 or 2 padded pixels,
        in the dtype of ``x``; channels_last on the cpu and triton backends.
        Gradients flow to ``x``, ``weight`` and ``bias``.

    Raises:
        %(raises)s

    %(precision)s

    Paper: R. Rombach et al., "High-resolution image synthesis with latent diffusion models",
    CVPR 2022.
    """
    if padding not in PADDINGS:
        raise ValueError(f"{OP}: padding must be 'asymmetric' or 'symmetric'; got {padding!r}")
    check_conv(OP, x, weight, bias, kernel=3, smallest=3 - PADDINGS[padding])
    return run_conv(
        OP, (x, weight, bias), (padding,), activation, negative_slope, precision, backend
    )
