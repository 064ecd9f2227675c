"""A network as a list of steps, each of which can run on a part of the image.

A step maps a state ``(x, skip)`` to the next one; ``skip`` is what a residual block adds later, of
the height and width of ``x``, or None. A pixel of the result depends on the few pixels of the
input that :class:`Window` names, and on nothing else but the mean and variance of each group of
channels of ``x``: where a part of an image is computed, these are given to the step as an affine
map. So any part is computed exactly from a part of the input. Layers run their steps one after
the other on the whole image; ``vaekernels.tiling`` runs them part by part.
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
        """In the dtype of ``x``, computed in that of the map."""
        return torch.addcmul(self.shift, x, self.scale).to(x.dtype)


class State(NamedTuple):
    """What lies between two steps.

    Attributes:
        x: the value.
        skip: what is added to it later, or None.
        statistics: those of x, for the normalisation that the next step begins with, where the op
            that computed x gave them; else None.
        asks: whether the statistics of what the next step makes of x would be used, by the one
            behind it. Set by :func:`run_steps`.
    """

    x: Tensor
    skip: Tensor | None = None
    statistics: Tensor | None = None
    asks: bool = False


class Window(NamedTuple):
    """Which rows of the input a run of rows of the result needs; the same for columns.

    Row ``i`` of the result needs rows ``(down * i - before) // up`` to
    ``(down * i + after) // up``.

    Attributes:
        before: rows in front.
        after: rows behind.
        up: how often every row is repeated first.
        down: the stride.
        rounds_up: whether half of an odd size is rounded up.
    """

    before: int = 0
    after: int = 0
    up: int = 1
    down: int = 1
    rounds_up: bool = False

    def size(self, size: int) -> int:
        """Rows of the result of ``size`` rows."""
        return (size * self.up + (self.down - 1 if self.rounds_up else 0)) // self.down

    def needs(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Rows of the input, of ``size`` rows, for rows ``first`` to ``last`` (exclusive)."""
        begin = (first * self.down - self.before) // self.up
        end = -(-((last - 1) * self.down + 1 + self.after) // self.up)
        return max(begin, 0), min(end, size)

    def origin(self, first: int) -> int:
        """The row of the result that an input from row ``first`` on begins with."""
        return first * self.up // self.down


PIXEL = Window()
CONV3X3 = Window(before=1, after=1)
UPSAMPLE_CONV3X3 = Window(before=1, after=1, up=2)
DOWNSAMPLE_CONV3X3 = {
    # The stride's grid starts at even rows: one more in front for a padding of one.
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
    """One step: how it runs, which pixels it needs, and what it costs.

    Attributes:
        run: ``run(state, affine)`` -> state; ``affine`` is None where the whole image is there,
            and the step normalises by itself.
        channels: of ``x`` after the step.
        skip_channels: of ``skip`` after the step; 0: none.
        window: which pixels of the input a pixel of the result needs.
        norm: the group normalisation of ``x`` that the step begins with, or None.
        convs: the 3x3 convolutions of the step.
        temporary: channels of what the step holds beside its input, normalised input and result,
            in pixels of the result.
        work: multiplications for a pixel of the result.
        attend: for attention, which reads the whole image for every pixel:
            ``attend(x, affine, chunk)`` -> result, for ``chunk`` pixels at a time.
    """

    run: Run
    channels: int
    skip_channels: int = 0
    window: Window = PIXEL
    norm: nn.GroupNorm | None = None
    convs: tuple[nn.Conv2d, ...] = ()
    temporary: int = 0
    work: int = 0
    attend: Attend | None = None

    @property
    def op_use(self) -> OpUse | None:
        """The op with filters or a normalisation that the step calls; None: there is none."""
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
    """A step around one 3x3 convolution."""
    # Upsampling folds into 2x2 taps for each pixel.
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


def pixel_step(module: nn.Module, channels: int, work: int = 0) -> Step:
    """A module that maps every pixel by itself, to ``channels`` channels."""
    return Step(lambda state, affine: State(module(state.x)), channels, work=work)


class Chain(nn.Module):
    """A layer, or a network of layers, that is a chain of steps.

    Steps take the parameters of the layers and do not call them. Where one of them no longer
    computes what the steps do (it has hooks, another forward, another padding mode, it was
    exchanged for another module), the layers are called one after the other instead.
    """

    def steps(self) -> list[Step]:
        """The steps in their order."""
        raise NotImplementedError

    def used(self) -> Iterable[Used]:
        """The layers that the steps stand for, and what each must be for that.

        One after the other: what a layer must be may depend on those before it.
        """
        raise NotImplementedError

    def by_layers(self, x: Tensor) -> Tensor:
        """What the steps compute, by calls of the layers: plain PyTorch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, Ci, H, W) to (N, Co, H', W')."""
        if first_changed(self.used()) is None:
            return run_steps(self.steps(), x)
        return self.by_layers(x)

    def op_uses(self) -> list[OpUse]:
        """The ops of all steps; where layers are called, those of their own are theirs."""
        if first_changed(self.used()) is not None:
            return []
        return [step.op_use for step in self.steps() if step.op_use is not None]


_METHODS = {name: getattr(Chain, name) for name in ("forward", "__call__", "_call_impl")}


def is_chain(layer: nn.Module) -> bool:
    """A chain that itself is unchanged; its layers may not be."""
    if not isinstance(layer, Chain) or is_observed(layer):
        return False
    attributes, own = layer.__dict__, type(layer)
    if attributes.get("_compiled_call_impl") is not None:
        return False
    return all(
        name not in attributes and getattr(own, name) is method for name, method in _METHODS.items()
    )


def first_changed(used: Iterable[Used]) -> nn.Module | None:
    """The first layer, of these and of the chains among them, that steps cannot stand for."""
    for layer, form in used:
        if not form(layer):
            return layer
        if isinstance(layer, Chain):
            inner = first_changed(layer.used())
            if inner is not None:
                return inner
    return None


def run_steps(steps: Sequence[Step], x: Tensor) -> Tensor:
    """The steps one after the other on a whole image."""
    state = State(x)
    for step, after in zip(steps, (*steps[1:], None), strict=True):
        # Attention normalises a small image, by an op that takes no statistics.
        asks = after is not None and after.norm is not None and after.attend is None
        state = step.run(state._replace(asks=asks), None)
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
    """The state after a convolution of the value, whose ``skip`` is given."""
    x, statistics = chained_conv(
        *(op, state.x, conv.weight, conv.bias),
        norm=norm,
        residual=residual,
        projection=None if projection is None else (projection.weight, projection.bias),
        padding=padding,
        statistics=state.statistics,
        asks=state.asks,
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
    """GroupNorm, SiLU, 3x3 convolution, and a sum, in one op where the whole image is there.

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
    """The group normalisation alone."""
    if affine is None:
        return group_norm_silu(
            x, norm.weight, norm.bias, norm.num_groups, eps=norm.eps, activation=None
        )
    return affine(x)
