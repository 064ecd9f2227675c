"""``vk.nn.TinyEncoder`` and ``vk.nn.TinyDecoder``: encoder and decoder of TAESD."""

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
from vaekernels.nn.layer_chain import (
    Affine,
    Chain,
    State,
    Step,
    conv_step,
    is_unmodified_chain,
    normalise,
)
from vaekernels.nn.resample import downsample_step, upsample_step
from vaekernels.ops import conv3x3

_POOL_GROUPS = 4
_is_stride2 = conv_form(3, stride=2, padding=1)


class TinyBlock(Chain):
    r"""Three 3x3 convolutions with ReLU and a residual connection.

    .. math::
        y = \mathrm{relu}(w_3 * \mathrm{relu}(w_2 * \mathrm{relu}(w_1 * x)) + x)

    With ``pooled``, x is first replaced by :math:`x + u\, \mathrm{relu}(\mathrm{GN}(v x))`, a
    branch with four times the channels that is normalised over the whole image (TAEF2).

    The state dict has diffusers' keys (``AutoencoderTinyBlock``): conv.0, conv.2, conv.4; the keys
    of the branch are taesd's: pool.0, pool.1, pool.3.

    Shapes: (N, C, H, W) to the same.

    Args:
        channels: number of channels C of x and y.
        pooled: whether the block has the pooled branch.

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
        """The two steps of the branch, if any, and the three convolutions."""
        first, second, third = _convolutions(self.conv)

        def begin(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, first, "relu"), state.x)

        def continue_block(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, second, "relu"), state.skip)

        def add(state: State, affine: Affine | None) -> State:
            return State(_conv(state.x, third, "relu", state.skip))

        channels = first.in_channels
        return [
            *([] if self.pool is None else _pool_steps(self.pool)),
            conv_step(begin, first, skip_channels=channels),
            conv_step(continue_block, second, skip_channels=channels),
            conv_step(add, third),
        ]

    def replaced_layers(self) -> Iterator[Used]:
        """All layers."""
        if self.pool is not None:
            yield from sequence(self.pool, is_conv1x1, is_group_norm, is_relu, is_conv1x1)
        yield from sequence(self.conv, is_conv3x3, is_relu, is_conv3x3, is_relu, is_conv3x3)

    def call_layers(self, x: Tensor) -> Tensor:
        """The branch, if any, and the convolutions."""
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
    """Images in [-1, 1] to latents: all levels but the first downsample; every level has blocks.

    The state dict has diffusers' keys (``EncoderTiny``): layers.i.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H / 2^(L - 1), W / 2^(L - 1)) for L levels,
    rounded up.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the latents.
        channels: channels of each level.
        blocks: number of blocks of each level.
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

    def replaced_layers(self) -> Iterator[Used]:
        """All layers."""
        yield self.layers, is_sequence
        inner = list(self.layers)[1:-1]
        forms = [
            is_unmodified_chain if isinstance(layer, TinyBlock) else _is_stride2 for layer in inner
        ]
        yield from sequence(self.layers, is_conv3x3, *forms, is_conv3x3)

    def call_layers(self, x: Tensor) -> Tensor:
        """The layers on images that are mapped to [0, 1]."""
        return self.layers(x.add(1).div(2))


class TinyDecoder(Chain):
    """Latents to images in [-1, 1]: every level has blocks; all but the last then upsample.

    The state dict has diffusers' keys (``DecoderTiny``): layers.i.

    Shapes: (N, in_channels, H, W) to (N, out_channels, 2^(L - 1) H, 2^(L - 1) W) for L levels.

    Args:
        in_channels: channels of the latents.
        out_channels: channels of the images.
        channels: channels of each level.
        blocks: number of blocks of each level.
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

    def replaced_layers(self) -> Iterator[Used]:
        """All layers."""
        yield self.layers, is_sequence
        yield from sequence(
            self.layers, is_conv3x3, is_relu, *_decoder_forms(list(self.layers)[2:])
        )

    def call_layers(self, x: Tensor) -> Tensor:
        """The layers on latents that are limited to +-3."""
        return self.layers(torch.tanh(x / 3) * 3).mul(2).sub(1)


def _decoder_forms(layers: Sequence[nn.Module]) -> Iterator[Form]:
    """Predicates of blocks, of upsampling and the convolution after it, of the last layer."""
    upsampled = False
    for layer in layers[:-1]:
        if upsampled:
            yield is_conv3x3
        else:
            yield is_unmodified_chain if isinstance(layer, TinyBlock) else is_doubling
        upsampled = not upsampled and not isinstance(layer, TinyBlock)
    if not upsampled:  # else the number of layers is wrong: yield one predicate too few
        yield is_conv3x3


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _conv(
    x: Tensor, conv: nn.Conv2d, activation: str | None = None, residual: Tensor | None = None
) -> Tensor:
    return conv3x3(x, conv.weight, conv.bias, activation=activation, residual=residual)


def _identity(x: Tensor) -> Tensor:
    return x


def _conv_step(
    conv: nn.Module,
    activation: str | None = None,
    *,
    before: Callable[[Tensor], Tensor] = _identity,
    after: Callable[[Tensor], Tensor] = _identity,
) -> Step:
    """A 3x3 convolution with elementwise functions ``before`` and ``after`` it."""
    assert isinstance(conv, nn.Conv2d)

    def run(state: State, affine: Affine | None) -> State:
        return State(after(_conv(before(state.x), conv, activation)))

    return conv_step(run, conv, temporary=2 * (conv.in_channels + conv.out_channels))
