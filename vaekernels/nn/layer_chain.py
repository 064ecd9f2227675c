"""A network as a chain of steps, each of which can be computed for a tile of the image.

A step maps a state ``(x, skip)`` to the next state. ``skip`` is the tensor that a residual block
adds later, with the height and width of ``x``, or None. A pixel of the result depends on the pixels
of the input that :class:`Window` describes, and otherwise only on the mean and variance of each
group of channels of ``x``, which are passed to the step as an affine map when a tile is computed.
Every tile can therefore be computed exactly from a part of the input. Layers run their steps in
order on the whole image; ``vaekernels.tiling`` runs them tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekernels.nn.expected_layers import Used
from vaekernels.nn.unmodified import is_observed
from vaekernels.ops import NormPrologue, group_norm_silu
from vaekernels.ops._chained import chained_conv
from vaekernels.ops._uses import OpUse


class Affine(NamedTuple):
    """A group normalisation with known statistics: ``x * scale + shift``.

    Attributes:
        scale: (N, C, 1, 1).
        shift: (N, C, 1, 1).
    """

    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map in its own dtype; the result has the dtype of ``x``."""
        return torch.addcmul(self.shift, x, self.scale).to(x.dtype)


class State(NamedTuple):
    """The values between two steps.

    Attributes:
        x: the activations.
        skip: the tensor that a residual block adds later, or None.
        statistics: the statistics of ``x`` for the normalisation that the next step begins with,
            if the op that computed ``x`` returned them; else None.
        emit_statistics: whether the next step should return the statistics of its result, because
            the step after it uses them. Set by :func:`run_steps`.
    """

    x: Tensor
    skip: Tensor | None = None
    statistics: Tensor | None = None
    emit_statistics: bool = False


class Window(NamedTuple):
    """The receptive field of a step: the input rows of each output row; the same for columns.

    Row ``i`` of the result depends on rows ``(down * i - before) // up`` to
    ``(down * i + after) // up``.

    Attributes:
        before: input rows before the centre.
        after: input rows after the centre.
        up: the factor of the nearest-neighbour upsampling before the convolution.
        down: the stride.
        rounds_up: whether half of an odd size is rounded up.
    """

    before: int = 0
    after: int = 0
    up: int = 1
    down: int = 1
    rounds_up: bool = False

    def output_size(self, size: int) -> int:
        """The number of rows of the result for an input of ``size`` rows."""
        return (size * self.up + (self.down - 1 if self.rounds_up else 0)) // self.down

    def required_rows(self, first: int, last: int, size: int) -> tuple[int, int]:
        """The input rows, of ``size``, that output rows ``first`` to ``last`` (exclusive) need."""
        begin = (first * self.down - self.before) // self.up
        end = -(-((last - 1) * self.down + 1 + self.after) // self.up)
        return max(begin, 0), min(end, size)

    def output_origin(self, first: int) -> int:
        """The first output row that is computed from an input that begins at row ``first``."""
        return first * self.up // self.down


POINTWISE = Window()
CONV3X3 = Window(before=1, after=1)
UPSAMPLE_CONV3X3 = Window(before=1, after=1, up=2)
DOWNSAMPLE_CONV3X3 = {
    # A tile begins at an even row, so a padding of one needs one more row before it.
    "asymmetric": Window(after=2, down=2),
    "symmetric": Window(before=2, after=1, down=2, rounds_up=True),
}
_OPS = {
    CONV3X3: "conv3x3",
    UPSAMPLE_CONV3X3: "upsample_conv3x3",
    **dict.fromkeys(DOWNSAMPLE_CONV3X3.values(), "downsample_conv3x3"),
}

Run = Callable[[State, Affine | None], State]
Attend = Callable[[Tensor, Affine, int], Tensor]


class Step(NamedTuple):
    """One step of a chain: its function, its receptive field and its cost.

    Attributes:
        run: ``run(state, affine)`` -> state. ``affine`` is None for a whole image, which the step
            normalises itself; for a tile it is the normalisation with the image's statistics.
        channels: channels of ``x`` after the step.
        skip_channels: channels of ``skip`` after the step; 0 if there is none.
        window: the receptive field.
        norm: the group normalisation of ``x`` that the step begins with, or None.
        convs: the 3x3 convolutions of the step.
        temporary: channels, at the size of the result, of the temporaries that are live besides
            the input, the normalised input and the result.
        work: multiplications per pixel of the result.
        attend: for attention, where every pixel depends on the whole image:
            ``attend(x, affine, chunk)`` -> result, computed for ``chunk`` pixels at a time.
    """

    run: Run
    channels: int
    skip_channels: int = 0
    window: Window = POINTWISE
    norm: nn.GroupNorm | None = None
    convs: tuple[nn.Conv2d, ...] = ()
    temporary: int = 0
    work: int = 0
    attend: Attend | None = None

    @property
    def op_use(self) -> OpUse | None:
        """The op with filters or a normalisation that the step calls, or None."""
        if self.convs:
            before = () if self.norm is None else (self.norm, "silu")
            return OpUse(_OPS[self.window], (*before, *self.convs))
        return None if self.norm is None else OpUse("group_norm_silu", (self.norm,))


def conv_step(
    run: Run,
    conv: nn.Conv2d,
    window: Window = CONV3X3,
    *,
    skip_channels: int = 0,
    norm: nn.GroupNorm | None = None,
    temporary: int = 0,
) -> Step:
    """A step with one 3x3 convolution."""
    # With upsampling folded in, each output pixel has 2x2 taps.
    taps = 4 if window.up == 2 else 9
    return Step(
        run,
        conv.out_channels,
        skip_channels=skip_channels,
        window=window,
        norm=norm,
        convs=(conv,),
        temporary=temporary,
        work=taps * conv.in_channels * conv.out_channels,
    )


def pointwise_step(module: nn.Module, channels: int, work: int = 0) -> Step:
    """A step that calls ``module``, which maps every pixel independently of the others."""
    return Step(lambda state, affine: State(module(state.x)), channels, work=work)


class Chain(nn.Module):
    """A layer, or a network of layers, that is a chain of steps.

    Steps use the parameters of PyTorch's layers without calling the layers. If one of these layers
    was modified (hooks, another ``forward`` or padding mode, another module in its place), the
    layers are called in order instead.
    """

    def steps(self) -> list[Step]:
        """The steps in order."""
        raise NotImplementedError

    def replaced_layers(self) -> Iterable[Used]:
        """The layers that the steps replace, each with the predicate that it must satisfy.

        They are checked in order: a predicate may rely on the layers before it.
        """
        raise NotImplementedError

    def call_layers(self, x: Tensor) -> Tensor:
        """The equivalent of the steps as calls of the layers."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, Ci, H, W) to (N, Co, H', W')."""
        if first_modified(self.replaced_layers()) is None:
            return run_steps(self.steps(), x)
        return self.call_layers(x)

    def op_uses(self) -> list[OpUse]:
        """The ops of all steps; none if the layers are called, which report their own."""
        if first_modified(self.replaced_layers()) is not None:
            return []
        return [step.op_use for step in self.steps() if step.op_use is not None]


_METHODS = {name: getattr(Chain, name) for name in ("forward", "__call__", "_call_impl")}


def is_unmodified_chain(layer: nn.Module) -> bool:
    """Whether ``layer`` is a chain that is unmodified itself; its layers are not checked."""
    if not isinstance(layer, Chain) or is_observed(layer):
        return False
    attributes, own = layer.__dict__, type(layer)
    if attributes.get("_compiled_call_impl") is not None:
        return False
    return all(
        name not in attributes and getattr(own, name) is method for name, method in _METHODS.items()
    )


def first_modified(used: Iterable[Used]) -> nn.Module | None:
    """The first layer, also inside of chains, that does not satisfy its predicate, or None."""
    for layer, form in used:
        if not form(layer):
            return layer
        if isinstance(layer, Chain):
            inner = first_modified(layer.replaced_layers())
            if inner is not None:
                return inner
    return None


def run_steps(steps: Sequence[Step], x: Tensor) -> Tensor:
    """Run the steps in order on a whole image."""
    state = State(x)
    for step, after in zip(steps, (*steps[1:], None), strict=True):
        # Attention normalises with an op that does not accept statistics.
        emit = after is not None and after.norm is not None and after.attend is None
        state = step.run(state._replace(emit_statistics=emit), None)
    return state.x


def convolve(
    op: str,
    state: State,
    conv: nn.Conv2d,
    norm: NormPrologue | None = None,
    residual: Tensor | None = None,
    projection: nn.Conv2d | None = None,
    *,
    padding: str | None = None,
    skip: Tensor | None = None,
) -> State:
    """Convolve ``state.x`` by ``op`` and return the next state, with the given ``skip``."""
    x, statistics = chained_conv(
        *(op, state.x, conv.weight, conv.bias),
        norm=norm,
        residual=residual,
        projection=None if projection is None else (projection.weight, projection.bias),
        padding=padding,
        statistics=state.statistics,
        emit_statistics=state.emit_statistics,
    )
    return State(x, skip, statistics)


def norm_conv3x3(
    state: State,
    norm: nn.GroupNorm,
    conv: nn.Conv2d,
    affine: Affine | None = None,
    residual: Tensor | None = None,
    projection: nn.Conv2d | None = None,
    skip: Tensor | None = None,
) -> State:
    """GroupNorm, SiLU, 3x3 convolution and residual; one op if ``affine`` is None.

    ``projection`` is a 1x1 convolution of the residual.
    """
    prologue = None
    if affine is None:
        prologue = NormPrologue(norm.weight, norm.bias, norm.num_groups, norm.eps)
    else:
        state = State(F.silu(affine(state.x), inplace=True))
    around = (prologue, residual, projection)
    return convolve("conv3x3", state, conv, *around, skip=skip)


def normalise(x: Tensor, norm: nn.GroupNorm, affine: Affine | None = None) -> Tensor:
    """The group normalisation without an activation."""
    if affine is None:
        return group_norm_silu(
            x, norm.weight, norm.bias, norm.num_groups, eps=norm.eps, activation=None
        )
    return affine(x)
