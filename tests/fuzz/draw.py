"""Strategies that draw tensors and the calls of the ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.fuzz.witness import ACTIVATIONS, CONVOLUTIONS

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 40, 64, 65, 129)
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 15, 16, 20, 31, 32, 33, 48, 64, 96)
_MOST = 150_000  # elements of the larger image


def _halves(t: Tensor) -> Tensor:
    return torch.cat([t, t], dim=1)[:, : t.shape[1]] if t.ndim > 1 else torch.stack([t, t], 1)[:, 0]


def _inner(t: Tensor) -> Tensor:
    """A part of a larger tensor, between values that must not be read."""
    large = torch.full([n + 2 for n in t.shape], math.nan, dtype=t.dtype)
    part = large[tuple(slice(1, n + 1) for n in t.shape)]
    return part.copy_(t)


def _transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def _channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels_last": _channels_last,
    "halves": _halves,
    "inner": _inner,
    "transposed": _transposed,
}
layouts = st.sampled_from(tuple(LAYOUTS))


@dataclass(frozen=True)
class Conv:
    """A call of a convolution.

    Attributes:
        op: key of ``CONVOLUTIONS``.
        sizes: N, C in, H, W, C out.
        layouts: of x, the weight, the residual and the gradient.
        spoiled: the value that one element of x has; None for a finite image.
        seed: of the values.
    """

    op: str
    sizes: tuple[int, int, int, int, int]
    layouts: tuple[str, str, str, str]
    bias: bool
    residual: bool
    groups: int | None
    activation: str | None
    slope: float
    precision: str
    threads: int
    spoiled: float | None
    seed: int

    @property
    def name(self) -> str:
        return self.op.split()[0]

    @property
    def finite(self) -> bool:
        return self.spoiled is None

    @property
    def padding(self) -> dict[str, str]:
        return {"padding": self.op.split()[1]} if " " in self.op else {}

    def tensors(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        n, ci, h, w, co = self.sizes
        k = 4 if "4x4" in self.op else 3
        transposed = self.op == "conv_transpose4x4"
        weight = randn(*((ci, co) if transposed else (co, ci)), k, k) / math.sqrt(ci * k * k)
        x_layout, weight_layout, residual_layout, _ = self.layouts
        found = {
            "x": LAYOUTS[x_layout](randn(n, ci, h, w)),
            "weight": LAYOUTS[weight_layout](weight),
        }
        if self.bias:
            found["bias"] = randn(co)
        if self.residual:
            found["residual"] = LAYOUTS[residual_layout](randn(n, co, h, w))
        if self.groups is not None:
            found["norm_weight"] = 1.0 + 0.2 * randn(ci)
            found["norm_bias"] = 0.2 * randn(ci)
        x = found["x"]
        if self.spoiled is not None and x.numel():
            position = int(torch.randint(x.numel(), (), generator=generator))
            at = torch.unravel_index(torch.tensor(position), x.shape)
            x[at] = self.spoiled
        return found


@st.composite
def convs(draw: st.DrawFn, *, finite: bool) -> Conv:
    op = draw(st.sampled_from(tuple(CONVOLUTIONS)))
    smallest = 1 if op in ("conv3x3", "upsample_conv3x3", "conv_transpose4x4") else 2
    smallest = 1 if op.endswith(" symmetric") else smallest
    n, ci, co = draw(st.integers(0, 3)), *(draw(st.sampled_from(CHANNELS)) for _ in range(2))
    h, w = (max(draw(st.sampled_from(SIZES)), smallest) for _ in range(2))
    while max(n, 1) * h * w * max(ci, co) > _MOST:
        h, w = max(smallest, h // 2), max(smallest, w // 2)
    groups = None
    # A normalisation over few numbers is mostly rounding, and its gradient all of it.
    if op == "conv3x3" and draw(st.booleans()):
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if ci % g == 0]))
        groups = groups if ci // groups * h * w >= 32 else None
    return Conv(
        op=op,
        sizes=(n, ci, h, w, co),
        layouts=draw(st.tuples(layouts, layouts, layouts, layouts)),
        bias=draw(st.booleans()),
        residual=op == "conv3x3" and draw(st.booleans()),
        groups=groups,
        activation=draw(st.sampled_from(tuple(ACTIVATIONS))),
        slope=draw(st.sampled_from((0.01, 0.2, 1.5))),
        precision=draw(st.sampled_from(("high", "highest"))),
        threads=draw(st.integers(1, 4)),
        spoiled=None if finite else draw(st.sampled_from((math.nan, math.inf, -math.inf))),
        seed=draw(st.integers(0, 2**31)),
    )


# Ways to write into a weight; every one adds 1 to the element at a position.
def _in_place(weight: Tensor, at: tuple[Tensor, ...]) -> None:
    weight[at] += 1.0


def _data(weight: Tensor, at: tuple[Tensor, ...]) -> None:
    weight.data[at] += 1.0


def _numpy(weight: Tensor, at: tuple[Tensor, ...]) -> None:
    weight.detach().numpy()[tuple(map(int, at))] += 1.0


def _dlpack(weight: Tensor, at: tuple[Tensor, ...]) -> None:
    torch.from_dlpack(weight.detach())[at] += 1.0


def _fused_optimiser(weight: Tensor, at: tuple[Tensor, ...]) -> None:
    parameter = torch.nn.Parameter(weight)
    parameter.grad = torch.zeros_like(parameter)
    parameter.grad[at] = -1.0
    torch.optim.SGD([parameter], lr=1.0, fused=True).step()


WRITES = (_in_place, _data, _numpy, _dlpack, _fused_optimiser)
writes = st.lists(st.sampled_from(WRITES), max_size=3)


def add_one(weight: Tensor, write: Callable[[Tensor, tuple[Tensor, ...]], None], seed: int) -> None:
    """Add 1 to an element of ``weight`` by ``write``."""
    position = torch.randint(weight.numel(), (), generator=torch.Generator().manual_seed(seed))
    write(weight, torch.unravel_index(position, weight.shape))


LATENT_SHAPES: Sequence[tuple[int, ...]] = (
    *((1,), (3,), (20,), (257,), (1024,), (0,)),
    *((4, 8, 8), (16, 5, 3), (2, 3, 2, 2), (3, 1, 33)),
)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Latent:
    """A call of an op on rows: ``inputs`` are its tensors in order."""

    op: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layouts: tuple[str, str, str]
    threads: int
    spoiled: float | None
    seed: int

    def tensors(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        a, b, c = (torch.randn(self.shape, generator=generator) for _ in range(3))
        values = {
            "gaussian_kl": [a, 0.7 * b],
            "rsample_kl": [a, 0.7 * b],
            "bernoulli_nll": [a, b.sigmoid()],
            "gaussian_nll": [a, b, 0.7 * c],
            "laplace_nll": [a, b, c.exp()],
        }[self.op]
        if self.spoiled is not None and values[0].numel():
            position = int(torch.randint(values[0].numel(), (), generator=generator))
            values[0].view(-1)[position] = self.spoiled
        return [
            LAYOUTS[layout](t.to(self.dtype))
            for layout, t in zip(self.layouts, values, strict=False)
        ]


@st.composite
def latents(draw: st.DrawFn) -> Latent:
    ops = ("gaussian_kl", "rsample_kl", "bernoulli_nll", "gaussian_nll", "laplace_nll")
    return Latent(
        op=draw(st.sampled_from(ops)),
        shape=(draw(st.sampled_from((0, 1, 2, 5, 64))), *draw(st.sampled_from(LATENT_SHAPES))),
        dtype=draw(st.sampled_from(DTYPES)),
        layouts=draw(st.tuples(layouts, layouts, layouts)),
        threads=draw(st.integers(1, 4)),
        spoiled=draw(st.sampled_from((None, None, math.nan, math.inf))),
        seed=draw(st.integers(0, 2**31)),
    )


@dataclass(frozen=True)
class Norm:
    """A call of group_norm_silu."""

    shape: tuple[int, int, int, int]
    groups: int
    layout: str
    scale: float
    offset: float
    activation: str | None
    threads: int
    spoiled: bool
    seed: int

    def tensors(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        x = self.scale * torch.randn(self.shape, generator=generator) + self.offset
        if self.spoiled:
            x.view(-1)[int(torch.randint(x.numel(), (), generator=generator))] = math.nan
        vectors = torch.randn(self.shape[1], 2, generator=generator).unbind(1)
        return [LAYOUTS[self.layout](x), *vectors]


@st.composite
def norms(draw: st.DrawFn) -> Norm:
    channels = draw(st.sampled_from((4, 8, 12, 20, 32, 48, 64, 96)))
    groups = draw(st.sampled_from([g for g in (1, 2, 4, channels) if channels % g == 0]))
    h, w = (draw(st.sampled_from(SIZES[:-2])) for _ in range(2))
    h = max(h, 2) if channels == groups else h
    return Norm(
        shape=(draw(st.integers(1, 3)), channels, h, w),
        groups=groups,
        layout=draw(layouts),
        scale=draw(st.sampled_from((1.0, 1e-2, 30.0))),
        offset=draw(st.sampled_from((0.0, 0.0, 50.0))),
        activation=draw(st.sampled_from((None, "silu"))),
        threads=draw(st.integers(1, 4)),
        spoiled=draw(st.sampled_from((False, False, True))),
        seed=draw(st.integers(0, 2**31)),
    )
