"""``vk.nn.FSQ``: finite scalar quantization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaekernels.nn.quantizers.base import Quantized, check_channels

# Widens the range of tanh, so that the outermost levels are reached by finite inputs.
_EPS = 1e-3


class FSQ(nn.Module):
    r"""Finite scalar quantization: each channel is bounded and rounded to one of a few levels.

    For the channel :math:`c` with :math:`L_c` levels and :math:`h_c = \lfloor L_c / 2 \rfloor`,

    .. math::
        q_c = \mathrm{round}\left( a_c \tanh(x_c + s_c) - o_c \right) / h_c, \qquad
        i = \sum_c (h_c q_c + h_c) \prod_{c' < c} L_{c'}

    where :math:`a_c = (L_c - 1) (1 + 10^{-3}) / 2`, and :math:`o_c = 1/2` for an even number of
    levels and 0 otherwise; :math:`s_c = \mathrm{atanh}(o_c / a_c)` maps 0 to the level 0. The
    gradient is that of the expression without ``round`` (straight-through). There are no
    parameters, no codebook to collapse and no auxiliary loss.

    Equivalent PyTorch, for odd numbers of levels::

        bounded = torch.tanh(x) * (levels - 1) * 1.001 / 2     # the channels are the last dim
        rounded = bounded + (bounded.round() - bounded).detach()
        quantized = rounded / (levels // 2)
        indices = ((rounded + levels // 2) * basis).sum(-1)    # basis = 1, L_0, L_0 L_1, ...

    Args:
        levels: the number of levels of each channel, 2 or more. The paper proposes (8, 6, 5) for
            about 2^8 codes, (8, 5, 5, 5) for 2^10, (7, 5, 5, 5, 5) for 2^12, (8, 8, 8, 6, 5) for
            2^14 and (8, 8, 8, 5, 5, 5) for 2^16.
        channel_dim: the dim of the channels: 1 for images (B, C, H, W), -1 for sequences (B, N, C).

    Attributes:
        codebook_size: the number of codes, the product of ``levels``.
        dim: the number of channels, ``len(levels)``.

    Raises:
        TypeError: ``levels`` is not a sequence of integers.
        ValueError: ``levels`` is empty, one of them is below 2, or there are 2^63 codes or more.

    Precision: computed in float32 (float64 for float64 input), also under autocast; the result is
    rounded once. A vector with a NaN has a NaN in its result and the index -1.

    Paper: F. Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023.

    Example:
        >>> quantizer = vk.nn.FSQ((8, 5, 5, 5))
        >>> quantized, indices = quantizer(latents)  # (B, 4, H, W) -> (B, 4, H, W), (B, H, W)
        >>> assert quantizer.codes(indices).equal(quantized)
    """

    def __init__(self, levels: Sequence[int], channel_dim: int = 1) -> None:
        super().__init__()
        if not isinstance(levels, Sequence) or not all(isinstance(n, int) for n in levels):
            raise TypeError(f"FSQ: levels must be a sequence of integers; got {levels!r}")
        levels = tuple(levels)
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ: levels must be one or more numbers from 2; got {levels}")
        self.levels = levels
        self.channel_dim = channel_dim
        self.dim = len(levels)
        self.codebook_size = math.prod(levels)
        if self.codebook_size >= 2**63:
            raise ValueError(f"FSQ: levels must give fewer than 2^63 codes; got {levels}")
        # The place value of each channel's digit in an index.
        self._places = tuple(math.prod(levels[:channel]) for channel in range(self.dim))

    def forward(self, x: Tensor) -> Quantized:
        """Quantize each vector of ``x``.

        Args:
            x: float64, float32, bfloat16 or float16, with ``dim`` channels at ``channel_dim``.

        Returns:
            ``quantized`` in [-1, 1], in the shape and dtype of ``x``; ``indices`` in
            [0, codebook_size), the shape without the channels.

        Raises:
            TypeError: ``x`` is not a floating tensor.
            ValueError: it does not have ``dim`` channels.
        """
        check_channels("FSQ", x, self.dim, self.channel_dim)
        wide = torch.promote_types(x.dtype, torch.float32)
        quantized, digits = [], []
        # Channel by channel: Python numbers as constants need no device and no dtype.
        for channel, n, place in zip(
            x.unbind(self.channel_dim), self.levels, self._places, strict=True
        ):
            half, offset = (n - 1) * (1 + _EPS) / 2, (n + 1) % 2 / 2
            bounded = torch.tanh(channel.to(wide) + math.atanh(offset / half)) * half - offset
            level = bounded.detach().round()
            # The difference is exactly 0, so that the codes have the bits of codes(indices).
            rounded = level + (bounded - bounded.detach())
            quantized.append((rounded / (n // 2)).to(x.dtype))
            digits.append((level.to(torch.int64) + n // 2) * place)
        has_nan = x.isnan().any(self.channel_dim)
        indices = torch.stack(digits).sum(0).masked_fill(has_nan, -1)
        return Quantized(torch.stack(quantized, self.channel_dim), indices)

    def codes(self, indices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The codes of ``indices``, with the bits that :meth:`forward` returns for them.

        Args:
            indices: int64, any shape.
            dtype: of the result.

        Returns:
            The shape of ``indices`` with the channels at ``channel_dim``; NaN where an index is not
            in [0, codebook_size).

        Raises:
            TypeError: ``indices`` is not an int64 tensor.
            ValueError: it has too few dims for ``channel_dim``.
        """
        if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
            got = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
            raise TypeError(f"FSQ: indices must be an int64 tensor; got {got}")
        if not -indices.ndim - 1 <= self.channel_dim <= indices.ndim:
            raise ValueError(
                f"FSQ: indices must have a dim before the channels, at {self.channel_dim}; "
                f"got shape {tuple(indices.shape)}"
            )
        valid = (indices >= 0) & (indices < self.codebook_size)
        wide = torch.promote_types(dtype, torch.float32)
        codes = [
            torch.where(valid, (indices // place % n - n // 2).to(wide) / (n // 2), math.nan)
            for n, place in zip(self.levels, self._places, strict=True)
        ]
        return torch.stack(codes, self.channel_dim).to(dtype)

    def extra_repr(self) -> str:
        """The arguments of the constructor."""
        return f"{self.levels}, channel_dim={self.channel_dim}"
