"""``vk.nn.TinyEncoder`` and ``vk.nn.TinyDecoder``: the halves of the tiny autoencoders (TAESD)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import (
    Form,
    Used,
    conv_form,
    is_conv1x1,
    is_conv3x3,
    is_doubling,
    is_group_norm,
    is_relu,
    is_sequence,
    sequence,
)
from vaekernels.nn.layer_chain import Affine, Chain, State, Step, conv_step, is_chain, normalise
from vaekernels.nn.resample import downsample_step, upsample_step
from vaekernels.ops import conv3x3

_POOL_GROUPS = 4
_is_stride2 = conv_form(3, stride=2, padding=1)


class TinyBlock(Chain):
    r"""Three 3x3 convolutions with ReLU, and a sum.

    .. math::
        y = \mathrm{relu}(w_3 * \mathrm{relu}(w_2 * \mathrm{relu}(w_1 * x)) + x)

    With ``pooled``, x is first :math:`x + u\, \mathrm{relu}(\mathrm{GN}(v x))`, a branch over four
    times the channels whose normalisation sees the whole image (TAEF2).

    The state dict has diffusers' keys (``AutoencoderTinyBlock``): conv.0, conv.2, conv.4; of the
    branch, as in taesd: pool.0, pool.1, pool.3.

    Args:
        channels: of x and y.
        pooled: whether there is the branch.

    Paper: O. Boer Bohan, "TAESD: tiny autoencoder for Stable Diffusion", 2023.
    """

    def __init__(self, channels: int, *, pooled: bool = False) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(channels, 4 * channels, 1, bias=False),
                nn.GroupNorm(_POOL_GROUPS, 4 * channels),
                nn.ReLU(),
                nn.Conv2d(4 * channels, channels, 1, bias=False),
            )

    def steps(self) -> list[Step]:
        """The convolutions, and before them the two halves of the branch."""
        first, second, third = _convolutions(self.conv)

        def begin(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, first, "relu"), state.x)

        def go_on(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, second, "relu"), state.skip)

        def add(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, third, "relu", state.skip))

        channels = first.in_channels
        return [
            *([] if self.pool is None else _pool_steps(self.pool)),
            conv_step(begin, first, skip_channels=channels),
            conv_step(go_on, second, skip_channels=channels),
            conv_step(add, third),
        ]

    def used(self) -> Iterator[Used]:
        """All layers."""
        if self.pool is not None:
            yield from sequence(self.pool, is_conv1x1, is_group_norm, is_relu, is_conv1x1)
        yield from sequence(self.conv, is_conv3x3, is_relu, is_conv3x3, is_relu, is_conv3x3)

    def by_layers(self, x: Tensor) -> Tensor:
        """The branch, then the convolutions."""
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


def _pool_steps(pool: nn.Sequential) -> list[Step]:
    widen, narrow = _convolutions(pool)
    norm = pool[1]
    assert isinstance(norm, nn.GroupNorm)

    def begin(state: State, affine: Affine | None) -> State:
        return State(widen(state.x), state.x)

    def add(state: State, affine: Affine | None) -> State:
        return State(narrow(F.relu(normalise(state.x, norm, affine))).add(state.skip))

    work = widen.in_channels * widen.out_channels
    return [
        Step(begin, widen.out_channels, skip_channels=widen.in_channels, work=work),
        Step(
            add,
            narrow.out_channels,
            norm=norm,
            temporary=2 * widen.out_channels + narrow.out_channels,
            work=work,
        ),
    ]


class TinyEncoder(Chain):
    """Images in [-1, 1] to latents: blocks, half the size before every level but the first.

    The state dict has diffusers' keys (``EncoderTiny``): layers.i.

    Args:
        in_channels: of the images.
        out_channels: of the latents.
        channels: of each level.
        blocks: of each level.
        pooled: whether the blocks of the smallest size have the pooled branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        *,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            if level == 0:
                layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            else:
                layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
            smallest = level == len(blocks) - 1
            layers += [TinyBlock(width, pooled=pooled and smallest) for _ in range(count)]
        layers.append(nn.Conv2d(channels[-1], out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def steps(self) -> list[Step]:
        """The steps of all layers."""
        first, *inner, last = self.layers
        found = [_conv_step(first, before=lambda x: x.add(1).div(2))]
        for layer in inner:
            if isinstance(layer, TinyBlock):
                found += layer.steps()
            elif isinstance(layer, nn.Conv2d):
                found.append(downsample_step(layer, "symmetric"))
        return [*found, _conv_step(last)]

    def used(self) -> Iterator[Used]:
        """All layers."""
        yield self.layers, is_sequence
        inner = list(self.layers)[1:-1]
        forms = [is_chain if isinstance(layer, TinyBlock) else _is_stride2 for layer in inner]
        yield from sequence(self.layers, is_conv3x3, *forms, is_conv3x3)

    def by_layers(self, x: Tensor) -> Tensor:
        """Of images in [0, 1]."""
        return self.layers(x.add(1).div(2))


class TinyDecoder(Chain):
    """Latents to images in [-1, 1]: blocks, twice the size after every level but the last.

    The state dict has diffusers' keys (``DecoderTiny``): layers.i.

    Args:
        in_channels: of the latents.
        out_channels: of the images.
        channels: of each level.
        blocks: of each level.
        pooled: whether the blocks of the smallest size have the pooled branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        *,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels[0], 3, padding=1), nn.ReLU()]
        for level, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            layers += [TinyBlock(width, pooled=pooled and level == 0) for _ in range(count)]
            if level < len(blocks) - 1:
                layers.append(nn.Upsample(scale_factor=2))
                layers.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
        layers.append(nn.Conv2d(channels[-1], out_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def steps(self) -> list[Step]:
        """The steps of all layers."""
        first, _, *inner, last = self.layers
        found = [_conv_step(first, "relu", before=lambda x: torch.tanh(x / 3) * 3)]
        for layer in inner:
            if isinstance(layer, TinyBlock):
                found += layer.steps()
            elif isinstance(layer, nn.Conv2d):
                found.append(upsample_step(layer))
        return [*found, _conv_step(last, after=lambda x: x.mul(2).sub(1))]

    def used(self) -> Iterator[Used]:
        """All layers."""
        yield self.layers, is_sequence
        yield from sequence(
            self.layers, is_conv3x3, is_relu, *_decoder_forms(list(self.layers)[2:])
        )

    def by_layers(self, x: Tensor) -> Tensor:
        """Of latents within +-3."""
        return self.layers(torch.tanh(x / 3) * 3).mul(2).sub(1)


def _decoder_forms(layers: Sequence[nn.Module]) -> Iterator[Form]:
    """Of blocks, and of upsampling with a convolution behind it; the last layer is one alone."""
    upsampled = False
    for layer in layers[:-1]:
        if upsampled:
            yield is_conv3x3
        else:
            yield is_chain if isinstance(layer, TinyBlock) else is_doubling
        upsampled = not upsampled and not isinstance(layer, TinyBlock)
    if not upsampled:  # else there is a form too few
        yield is_conv3x3


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _conv(
    x: Tensor, conv: nn.Conv2d, activation: str | None = None, residual: Tensor | None = None
) -> Tensor:
    return conv3x3(x, conv.weight, conv.bias, activation=activation, residual=residual)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _conv_step(
    conv: nn.Module,
    activation: str | None = None,
    *,
    before: Callable[[Tensor], Tensor] = _unchanged,
    after: Callable[[Tensor], Tensor] = _unchanged,
) -> Step:
    """A 3x3 convolution, with what is done to the pixels before and after it."""
    assert isinstance(conv, nn.Conv2d)

    def run(state: State, affine: Affine | None) -> State:
        return State(after(_conv(before(state.x), conv, activation)))

    return conv_step(run, conv, temporary=2 * (conv.in_channels + conv.out_channels))
