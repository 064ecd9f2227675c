"""What the ahead-of-time gate compiles of the convolutions: each op's forms in the tiles they use.

``descriptors`` are for sm_90 and newer, ``pointers`` for sm_80 and sm_89.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import triton.language as tl

from vaekernels.backends.triton.aot import Config
from vaekernels.backends.triton.conv.filter_gradient import filter_gradient_kernel
from vaekernels.backends.triton.conv.filters import (
    BLOCK,
    PACK_WARPS,
    WIDTH,
    pack_kernel,
    unpack_kernel,
)
from vaekernels.backends.triton.conv.forms import Form, adjoint
from vaekernels.backends.triton.conv.padded_images import pad_kernel
from vaekernels.backends.triton.conv.tap_gemm import tap_gemm_kernel
from vaekernels.backends.triton.conv.tile_heuristics import (
    CHUNK,
    HALF,
    SINGLE,
    TF32,
    GradientTile,
    Key,
    Tile,
    gradient_tile_of,
    tiles_of,
)

CHANNELS = 256  # of both sides
ODD_CHANNELS = 24  # no multiple of 16


class Numbers(NamedTuple):
    """What a configuration computes with.

    Attributes:
        stored: Triton's type in memory.
        factors: what is multiplied, as tile_heuristics.py has it.
        precision: how ``tl.dot`` multiplies.
    """

    stored: str
    factors: str
    precision: str


NUMBERS = {
    "bf16": Numbers("bf16", "bfloat16", "ieee"),
    "fp16": Numbers("fp16", "float16", "ieee"),
    "tf32": Numbers("fp32", "tf32", "tf32"),
    "fp32": Numbers("fp32", "float32", "tf32x3"),
}
# Sizes and strides that a multiple of 16 is known of: those of channels_last images.
ALIGNED = (
    *("depth", "columns", "channels", "inputs", "outputs"),
    *("residual_channels", "residual_depth"),
)
RESIDUAL = {
    "residual_channel": 1,
    **dict.fromkeys(("residual_batch", "residual_line", "residual_pixel"), "i32:16"),
}
# What is so known no longer where channels are no multiple of 16.
UNALIGNED = (
    *("channels", "residual_channels"),
    *("residual_batch", "residual_line", "residual_pixel"),
)
PIXELS = {"x_channel": 1, **dict.fromkeys(("x_batch", "x_line", "x_pixel"), "i32:16")}
PLANES = {"x_pixel": 1, **dict.fromkeys(("x_batch", "x_line", "x_channel"), "i32:16")}


def conv_configs(op: str, form: Form) -> list[Config]:
    """AOT variants of one op: forward, gradients of input and filters, padding and packing."""
    back = adjoint(form)
    one_phase = form if form.phases == 1 else back
    stride = {"STRIDE": form.stride}
    return [
        tap_gemm_config(op, form, "bf16", HALF[0], described=True),
        tap_gemm_config(op, form, "bf16", HALF[1]),
        tap_gemm_config(op, form, "tf32", TF32[0], described=True),
        tap_gemm_config(op, form, "tf32", TF32[0]),
        tap_gemm_config(op, form, "fp32", SINGLE[0]),
        tap_gemm_config(f"{op} adjoint", back, "bf16", HALF[1], described=True),
        gradient_config(f"{op} filters", one_phase, "bf16", described=True),
        gradient_config(f"{op} filters", one_phase, "bf16"),
        gradient_config(f"{op} filters", one_phase, "tf32", described=True),
        gradient_config(f"{op} filters", one_phase, "tf32"),
        _config(f"{op} pad pixels", pad_kernel, "bf16", _PAD | PIXELS | stride),
        _config(f"{op} pad pixels", pad_kernel, "tf32", _PAD | PIXELS | stride),
        _config(f"{op} pack", pack_kernel, "bf16", _filters(form), warps=PACK_WARPS),
        _config(f"{op} pack", pack_kernel, "tf32", _filters(form), warps=PACK_WARPS),
        _config(f"{op} unpack", unpack_kernel, "bf16", _filters(one_phase)),
    ]


def epilogue_configs(op: str, form: Form) -> list[Config]:
    """AOT variants of one op with norm and residual, by descriptors and by pointers."""
    kinds: list[tuple[str, Tile, bool, str]] = [
        ("bf16", HALF[1], True, "ieee"),
        ("fp16", HALF[1], False, "ieee"),
        ("tf32", TF32[0], True, "tf32"),
        ("tf32", TF32[0], False, "tf32"),
        ("fp32", SINGLE[0], True, "tf32x3"),
        ("fp32", SINGLE[0], True, "ieee"),
    ]
    norm = {"scale": "*fp32:16", "shift": "*fp32:16", "STRIDE": form.stride}
    return [
        *(
            tap_gemm_config(
                f"{op} {around} {precision}",
                form,
                dtype,
                tile,
                described,
                PRECISION=tl.constexpr(precision),
                **_around(around, dtype, tile, described),
            )
            for dtype, tile, described, precision in kinds
            for around in ("epilogue", "projection")
        ),
        _config(f"{op} pad norm pixels", pad_kernel, "bf16", _PAD | PIXELS | norm),
        _config(f"{op} pad norm planes", pad_kernel, "bf16", _PAD | PLANES | norm),
        gradient_config(f"{op} filters", form, "fp32", described=True),
    ]


def every_tile(op: str, form: Form, *arounds: str) -> list[Config]:
    """Variants of an op in each tile of tile_heuristics.py; float16 compiles as bfloat16 does.

    Args:
        op: that is named.
        form: of its result.
        arounds: what is around the products, as :func:`_around` has it.
    """
    kinds = (("bf16", "ieee"), ("tf32", "tf32"), ("fp32", "tf32x3"), ("fp32", "ieee"))
    return [
        config
        for described, (dtype, precision) in itertools.product((True, False), kinds)
        for config in (
            *_product_tiles(op, form, dtype, precision, described, arounds),
            *_gradient_tiles(op, form, dtype, precision, described),
        )
    ]


def _product_tiles(
    op: str, form: Form, dtype: str, precision: str, described: bool, arounds: tuple[str, ...]
) -> Iterator[Config]:
    known = (90 if described else 80, NUMBERS[dtype].factors, form.taps**2)
    for around, channels in itertools.product(arounds, (CHANNELS, ODD_CHANNELS)):
        aligned = channels == CHANNELS
        special = {} if aligned else dict.fromkeys(UNALIGNED, "i32")
        keys = (Key(*known, depth, channels, 1, around != "silu") for depth in (64, 32, 16))
        for tile in dict.fromkeys(tile for key in keys for tile in tiles_of(key)):
            yield tap_gemm_config(
                f"{op} tile {'' if aligned else 'odd '}{around} {precision}",
                form,
                dtype,
                tile,
                described,
                **{**_around(around, dtype, tile, described), **special},
                PRECISION=tl.constexpr(precision),
            )


def _gradient_tiles(
    op: str, form: Form, dtype: str, precision: str, described: bool
) -> Iterator[Config]:
    one_phase = form if form.phases == 1 else adjoint(form)
    sides = itertools.product((CHANNELS, ODD_CHANNELS), repeat=2)
    for tile in dict.fromkeys(gradient_tile_of(NUMBERS[dtype].factors, *side) for side in sides):
        name = f"{op} tile filters {precision}"
        yield gradient_config(name, one_phase, dtype, described, tile, precision)


def _around(around: str, dtype: str, tile: Tile, described: bool) -> dict[str, Any]:
    """What a product is in between of: "silu" alone, all of an "epilogue", or a "projection"."""
    known: dict[str, Any] = {"ACTIVATION": tl.constexpr("silu")}
    if around != "silu":
        residual = f"*{NUMBERS[dtype].stored}:16"
        known |= {"residual": residual, "statistics": "*fp32:16", **RESIDUAL}
    if around == "projection":
        known["projection"] = _matrix(dtype, (tile.columns, tile.depth), described)
    return known


def tap_gemm_config(
    name: str, form: Form, dtype: str, tile: Tile, described: bool = False, **special: Any
) -> Config:
    """The product of ``form``; ``special`` replaces arguments."""
    first, last = form.windows[0], form.windows[-1]
    known = {
        "x": _matrix(dtype, (tile.rows, tile.depth), described),
        "weight": _matrix(dtype, (tile.columns, tile.depth), described),
        "residual": None,
        "projection": None,
        "statistics": None,
        "slope": "fp32",
        "STRIDE": form.stride,
        "PHASES": form.phases,
        "TAPS": form.taps,
        "START_0": first.start,
        "TAPS_0": len(first.taps),
        "START_1": last.start,
        "TAPS_1": len(last.taps),
        "ACTIVATION": None,
        "PRECISION": tl.constexpr(NUMBERS[dtype].precision),
        "DESCRIPTORS": described,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "DEPTH": tile.depth,
        "PROJECTION_DEPTH": tile.depth,
    }
    name = f"{name} {tile.rows}x{tile.columns}x{tile.depth} {_way(described)}"
    options = {"warps": tile.warps, "stages": tile.stages}
    return _config(name, tap_gemm_kernel, dtype, known | special, **options)


def gradient_config(
    name: str,
    form: Form,
    dtype: str,
    described: bool = False,
    tile: GradientTile | None = None,
    precision: str | None = None,
) -> Config:
    """The gradient of the filters of ``form``, which has one phase."""
    tile = tile or gradient_tile_of(NUMBERS[dtype].factors, CHANNELS, CHANNELS)
    known = {
        "x": _matrix(dtype, (tile.rows, tile.inputs), described),
        "v": _matrix(dtype, (tile.rows, tile.outputs), described),
        "STRIDE": form.stride,
        "TAPS": form.taps,
        "START": form.windows[0].start,
        "PRECISION": tl.constexpr(precision or NUMBERS[dtype].precision),
        "DESCRIPTORS": described,
        "CHUNK": CHUNK,
        "ROWS": tile.rows,
        "INPUTS": tile.inputs,
        "OUTPUTS": tile.outputs,
    }
    name = f"{name} {tile.inputs}x{tile.outputs}x{tile.rows} {_way(described)}"
    options = {"warps": tile.warps, "stages": tile.stages}
    return _config(name, filter_gradient_kernel, dtype, known, **options)


_PAD = {"scale": None, "shift": None, "LINES": 1, "CELLS": 32, "CHANNELS": 64}


def _filters(form: Form) -> dict[str, Any]:
    return {
        "fold": "i32",
        "KERNEL": form.kernel,
        "PHASES": form.phases,
        "TAPS": form.taps,
        "BLOCK": BLOCK,
        "WIDTH": WIDTH,
    }


def _config(name: str, kernel: Any, dtype: str, known: dict[str, Any], **options: int) -> Config:
    stored = NUMBERS[dtype].stored
    known = {"ROUNDED": stored != "fp32", "TF32": dtype == "tf32"} | known

    def argument(key: str) -> Any:
        if key in known:
            return known[key]
        if key in ("x", "weight", "bias", "y", "padded", "matrix", "grad"):
            return f"*{stored}:16"
        if key == "partial":
            return "*fp32:16"
        return "i32:16" if key in ALIGNED else "i32"

    arguments = {key: argument(key) for key in kernel.arg_names}
    return Config(f"{name} {dtype}", kernel, arguments, **options)


def _matrix(dtype: str, block: tuple[int, int], described: bool) -> str:
    stored = NUMBERS[dtype].stored
    return f"tensordesc<{stored}[{block[0]},{block[1]}]>" if described else f"*{stored}:16"


def _way(described: bool) -> str:
    return "descriptors" if described else "pointers"
