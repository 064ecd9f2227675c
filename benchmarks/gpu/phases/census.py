"""Times of PyTorch's own kernels per layer of the autoencoder, and of our convolution's tiles.

The choice between cuDNN and our kernels is made from these figures.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import alternatives, kernels, works
from benchmarks.gpu.phase import Context, Row, brief
from vaekernels.bench.accuracy import distance
from vaekernels.bench.conv_gradients import CONV3X3, UPSAMPLE
from vaekernels.bench.op_inputs import ConvShape
from vaekernels.bench.timing import Call, columns, copies_beyond_cache, graph_replay, timings
from vaekernels.bench.workloads import Inputs, call, draw, inputs_of, laid_out

Make = Callable[[Inputs], Call]
_TOKENS = (4096, 16384)  # of 512 and 1024 pixels
_HEAD = 512


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    census = Census(context)
    layers = ((8, 8, 8),) if context.tiny else works.LAYERS
    upsampled = ((8, 8, 8),) if context.tiny else works.UPSAMPLED
    normalised = ((32, 8),) if context.tiny else works.NORMALISED
    tokens = (64,) if context.tiny else _TOKENS
    todo: list[tuple[str, Callable[[float], Row]]] = []

    def add(name: str, measure: Callable[..., Row], *arguments: Any) -> None:
        todo.append((name, functools.partial(measure, *arguments)))

    for layer in layers:
        add(f"cudnn {_title(layer)}", census.conv, layer)
    for layer in upsampled:
        add(f"upsample {_title(layer)}", census.upsample, layer)
    for count in tokens:
        add(f"attention, {count} tokens", census.attention, count)
    for batch in (1, 8):
        for channels, size in normalised:
            add(f"group norm b{batch}, {channels} x {size}px", census.norm, batch, channels, size)
    for layer in layers:
        add(f"tiles {_title(layer)}", census.tiles, layer)
    yield from context.each(todo, lambda one: one[0], lambda one, seconds: one[1](seconds))


class Census:
    """Measures on one device, in bfloat16 (float32 where sizes are tiny)."""

    def __init__(self, context: Context) -> None:
        self.device = context.device
        self.tiny = context.tiny
        self.dtype = context.dtype

    def conv(self, layer: tuple[int, int, int], seconds: float) -> Row:
        """CuDNN's 3x3 convolution in channels_last and both gradients, with their rates."""
        incoming, outgoing, size = layer
        shape = ConvShape(1, incoming, outgoing, size, size)
        inputs = self._images(functools.partial(inputs_of, CONV3X3.cases, shape, grads=True))
        flops = 2 * 9 * incoming * outgoing * size**2

        def fprop(inputs: Inputs) -> Call:
            return lambda: F.conv2d(inputs["x"], inputs["weight"], padding=1)

        makes: dict[str, Make] = {
            "fprop": fprop,
            "dgrad": functools.partial(CONV3X3.eager_gradient, "x"),
            "wgrad": functools.partial(CONV3X3.eager_gradient, "weight"),
        }
        row = self._time(makes, inputs, seconds)
        return {**row, "tflops": {name: flops / ms / 1e9 for name, ms in row["ms"].items()}}

    def upsample(self, layer: tuple[int, int, int], seconds: float) -> Row:
        """Three forms of nearest upsampling and 3x3, and the distance of each from float64."""
        incoming, outgoing, size = layer
        shape = ConvShape(1, incoming, outgoing, size, size)
        given = draw(functools.partial(inputs_of, UPSAMPLE.cases, shape), self.device, self.dtype)
        exact = alternatives.upsample_interpolate(given["x"].double(), given["weight"].double())
        inputs = laid_out(
            {
                **given,
                "transposed": alternatives.merged_transposed(given["weight"]),
                "phases": alternatives.merged_phases(given["weight"]),
            },
            "channels_last",
        )
        ways = {
            "interpolate": (alternatives.upsample_interpolate, "weight"),
            "transposed": (alternatives.upsample_transposed, "transposed"),
            "phases": (alternatives.upsample_phases, "phases"),
        }
        makes: dict[str, Make] = {
            name: functools.partial(_of, function, ("x", weight))
            for name, (function, weight) in ways.items()
        }
        return self._time(makes, inputs, seconds, exact)

    def norm(self, batch: int, channels: int, size: int, seconds: float) -> Row:
        """Eager GroupNorm, alone and with SiLU, in both layouts, as rates of one read and write."""
        x = torch.randn((batch, channels, size, size), device=self.device, dtype=self.dtype)
        last = x.to(memory_format=torch.channels_last)
        makes: dict[str, Make] = {
            "nchw": functools.partial(_of, _norm, ("x",)),
            "nchw_silu": functools.partial(_of, _norm_silu, ("x",)),
            "channels_last": functools.partial(_of, _norm, ("last",)),
            "channels_last_silu": functools.partial(_of, _norm_silu, ("last",)),
        }
        row = self._time(makes, {"x": x, "last": last}, seconds)
        moved = 2 * x.numel() * x.element_size()
        return {**row, "gbps": {name: moved / ms / 1e6 for name, ms in row["ms"].items()}}

    def attention(self, tokens: int, seconds: float) -> Row:
        """One head of 512: PyTorch's kernels, and products in chunks of queries."""
        head = 16 if self.tiny else _HEAD
        generator = torch.Generator(self.device).manual_seed(0)
        inputs = {
            name: torch.randn((1, 1, tokens, head), generator=generator, device=self.device).to(
                self.dtype
            )
            for name in "qkv"
        }
        q, k, v = (tensor.double() for tensor in inputs.values())
        exact = alternatives.attention_chunked(q, k, v, rows=1024)
        makes: dict[str, Make] = {
            "sdpa": functools.partial(_of, alternatives.attention_sdpa, "qkv")
        }
        for name in alternatives.SDPA:
            function = functools.partial(alternatives.attention_sdpa, backend=name)
            makes[f"sdpa_{name.lower()}"] = functools.partial(_of, function, "qkv")
        for rows in (512, 1024, 2048, 4096):
            function = functools.partial(alternatives.attention_chunked, rows=rows)
            makes[f"chunks_{rows}"] = functools.partial(_of, function, "qkv")
        return self._time(makes, inputs, seconds, exact)

    def tiles(self, layer: tuple[int, int, int], seconds: float) -> Row:
        """Our convolution with each of its tiles, and with the chosen one."""
        try:
            configs: Any = importlib.import_module(
                "vaekernels.backends.triton.conv.tile_heuristics"
            )
        except ModuleNotFoundError as missing:
            return {"refused": f"no module {missing.name}"}
        backend, why = kernels.fused_backend("conv3x3", self.device, self.dtype, "triton")
        if backend is None:
            return {"refused": why}
        incoming, outgoing, size = layer
        shape = ConvShape(1, incoming, outgoing, size, size)
        inputs = self._images(functools.partial(inputs_of, CONV3X3.cases, shape))
        function = functools.partial(CONV3X3.ours("high"), backend="triton")
        makes: dict[str, Make] = {"cudnn": functools.partial(_forward, CONV3X3.cases.eager)}

        def forced(tile: Any, inputs: Inputs) -> Call:
            call = _forward(function, inputs)

            def run() -> Any:
                with kernels.tap_gemm(tile):
                    return call()

            return run

        makes |= {_tile_name(tile): functools.partial(forced, tile) for tile in configs.HALF}
        makes["chosen"] = functools.partial(_forward, function)
        exact = CONV3X3.cases.eager(**{name: tensor.double() for name, tensor in inputs.items()})
        return self._time(makes, inputs, seconds, exact)

    def _images(self, inputs: Callable[..., Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return laid_out(draw(inputs, self.device, self.dtype), "channels_last")

    @torch.no_grad()
    def _time(
        self, makes: Mapping[str, Make], inputs: Inputs, seconds: float, exact: Tensor | None = None
    ) -> Row:
        """Time the contenders that run, add the errors of the others; distances from ``exact``."""
        row: Row = {}
        sets = copies_beyond_cache(inputs, self.device)
        contenders = {}
        for name, make in makes.items():
            try:
                if exact is not None:
                    far = distance([make(inputs)()], [exact])
                    row.setdefault("error", {})[name] = far
                contenders[name] = graph_replay(make, sets, self.device)
            except (RuntimeError, ValueError) as failure:  # noqa: PERF203
                row.setdefault("does_not_run", {})[name] = brief(failure)[:200]
        row |= columns(timings(contenders, seconds=seconds))
        del contenders, sets
        gc.collect()
        torch.cuda.empty_cache()
        return row


def _of(function: Callable[..., Tensor], names: tuple[str, ...] | str, inputs: Inputs) -> Call:
    tensors = [inputs[name] for name in names]
    return lambda: function(*tensors)


def _forward(function: Callable[..., Tensor], inputs: Inputs) -> Call:
    return call(function, CONV3X3.cases, inputs, "forward")


def _norm(x: Tensor) -> Tensor:
    return F.group_norm(x, 32, eps=1e-6)


def _norm_silu(x: Tensor) -> Tensor:
    return F.silu(_norm(x))


def _title(layer: tuple[int, int, int]) -> str:
    incoming, outgoing, size = layer
    return f"{incoming}->{outgoing} x {size}px"


def _tile_name(tile: Any) -> str:
    return "x".join(str(value) for value in dataclasses.astuple(tile))
