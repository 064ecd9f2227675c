"""``vk.nn.AttentionBlock``: self-attention over the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vaekernels.nn.expected_layers import Used, is_group_norm, is_linear
from vaekernels.nn.layer_chain import Affine, Chain, State, Step, normalise
from vaekernels.ops._attention import attend


class AttentionBlock(Chain):
    r"""Self-attention with one head over all pixels, behind a normalisation, and a sum.

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
        channels: C.
        groups: of the normalisation.
        eps: added to the variance.

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

    def by_layers(self, x: Tensor) -> Tensor:
        """The same with the normalisation's own forward."""
        return self._attended(x, self.group_norm(x))

    def in_chunks(self, x: Tensor, affine: Affine, chunk: int) -> Tensor:
        """The same for ``chunk`` pixels at a time, in the memory of x: beside it, keys and values.

        Args:
            x: (N, C, H, W), overwritten where it is channels_last.
            affine: what ``group_norm`` does to x.
            chunk: pixels of each image whose result is computed at once.
        """
        of_tokens = Affine(*(part.flatten(1).unsqueeze(1) for part in affine))
        pixels = _tokens(x).contiguous()  # else PyTorch takes its slowest attention
        keys, values = torch.empty_like(pixels), torch.empty_like(pixels)
        spans = [slice(first, first + chunk) for first in range(0, pixels.shape[1], chunk)]
        for span in spans:
            tokens = of_tokens(pixels[:, span])
            keys[:, span], values[:, span] = self.to_k(tokens), self.to_v(tokens)
        for span in spans:
            tokens = of_tokens(pixels[:, span])
            pixels[:, span] += self._attend(tokens, keys, values)
        return _image(pixels, x)

    def steps(self) -> list[Step]:
        """One, which needs the whole image."""
        channels = self.to_q.in_features
        return [
            Step(
                lambda state, affine: State(self._normalised_and_attended(state.x)),
                channels,
                norm=self.group_norm,
                temporary=5 * channels,
                work=4 * channels**2,
                attend=self.in_chunks,
            )
        ]

    def used(self) -> Iterator[Used]:
        """All layers: the linear ones are called, but for a chunk of the pixels where tiled."""
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
