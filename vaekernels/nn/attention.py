"""``vk.nn.AttentionBlock``: self-attention over the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vaekernels.nn.expected_layers import Used, is_group_norm, is_linear
from vaekernels.nn.layer_chain import Affine, Chain, State, Step, normalise
from vaekernels.ops._attention import attend


class AttentionBlock(Chain):
    r"""Group normalisation, single-head self-attention over all pixels, and a residual connection.

    .. math::
        n = \mathrm{GN}(x), \qquad
        y = x + W_o\, \mathrm{softmax}\!\left(\frac{q k^\top}{\sqrt C}\right) v, \qquad
        q, k, v = W_q n, W_k n, W_v n

    Equivalent PyTorch::

        n = group_norm(x).flatten(2).transpose(1, 2)
        a = F.scaled_dot_product_attention(to_q(n), to_k(n), to_v(n))
        y = x + to_out[0](a).transpose(1, 2).unflatten(2, x.shape[2:])

    Shapes: (N, C, H, W) to the same, channels_last.

    The state dict has diffusers' keys (``Attention``): group_norm, to_q, to_k, to_v, to_out.0.

    Args:
        channels: number of channels C.
        groups: number of groups of the normalisation.
        eps: value added to the variance.

    Raises:
        ValueError: ``groups`` does not divide ``channels``.
    """

    def __init__(self, channels: int, *, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def call_layers(self, x: Tensor) -> Tensor:
        """The equation, with a call of the normalisation."""
        return self._attended(x, self.group_norm(x))

    def forward_in_chunks(self, x: Tensor, affine: Affine, chunk: int) -> Tensor:
        """The forward for ``chunk`` pixels at a time; only keys and values are kept besides x.

        Args:
            x: (N, C, H, W), overwritten by the result if it is channels_last.
            affine: the group normalisation of x.
            chunk: number of pixels of each image that are computed at once.
        """
        affine_of_tokens = Affine(*(part.flatten(1).unsqueeze(1) for part in affine))
        pixels = _tokens(x).contiguous()  # otherwise PyTorch selects its slowest attention
        keys, values = torch.empty_like(pixels), torch.empty_like(pixels)
        spans = [slice(first, first + chunk) for first in range(0, pixels.shape[1], chunk)]
        for span in spans:
            tokens = affine_of_tokens(pixels[:, span])
            keys[:, span], values[:, span] = self.to_k(tokens), self.to_v(tokens)
        for span in spans:
            tokens = affine_of_tokens(pixels[:, span])
            pixels[:, span] += self._attend(tokens, keys, values)
        return _image(pixels, x)

    def steps(self) -> list[Step]:
        """One step, which depends on the whole image."""
        channels = self.to_q.in_features
        return [
            Step(
                lambda state, affine: State(self._normalised_and_attended(state.x)),
                channels,
                norm=self.group_norm,
                temporary=5 * channels,
                work=4 * channels**2,
                attend=self.forward_in_chunks,
            )
        ]

    def replaced_layers(self) -> Iterator[Used]:
        """All layers. The linear ones are called, but on a chunk of the pixels when tiled."""
        yield self.group_norm, is_group_norm
        yield from ((layer, is_linear) for layer in (self.to_q, self.to_k, self.to_v, *self.to_out))

    def _normalised_and_attended(self, x: Tensor) -> Tensor:
        return self._attended(x, normalise(x, self.group_norm))

    def _attended(self, x: Tensor, normalised: Tensor) -> Tensor:
        tokens = _tokens(normalised)
        attended = self._attend(tokens, self.to_k(tokens), self.to_v(tokens))
        return x + _image(attended, x)

    def _attend(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.to_out[0](attend(self.to_q(tokens), keys, values))


def _tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, HW, C): a view of channels_last images."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)
