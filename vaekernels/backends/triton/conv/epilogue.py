"""The epilogue as a pass of its own, behind what the library computed."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaekernels.backends.triton.aot import Config
from vaekernels.backends.triton.conv.launch import Epilogue, vector
from vaekernels.backends.triton.conv.tap_gemm import activate, store_statistics
from vaekernels.backends.triton.launch_grid import cdiv, run, written_dtype

ROWS, CHANNELS = 128, 64  # pixels of a tile, and channels of a program: 128 bytes of 16 bits
WARPS = 8


@triton.jit(do_not_specialize=["pixels", "tiles", "width"])
def finish_kernel(
    x,  # (N, pixels, channels)
    bias,  # (channels,), or None
    residual,  # (N, channels, height, width), any strides, or None
    y,  # (N, pixels, channels): out, may be x; or None
    statistics,  # (N, tiles, 3, channels) float32: out, or None
    pixels,
    channels,
    tiles,
    width,
    residual_batch,
    residual_channel,
    residual_line,
    residual_pixel,
    slope,  # of leaky_relu
    ACTIVATION: tl.constexpr,
    ROUNDED: tl.constexpr,  # to 16 bits
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """What the product's epilogue does, for images that something else computed.

    Equation: y = f(x + bias + residual); count, mean and M2 of each channel of ROWS pixels of y.
    Grid: one program per tile and CHANNELS channels.
    Numerics: float32, one rounding. Statistics are those of the rounded results, about the
        tile's mean.
    Saved for backward: the launcher's business, as tap_gemm.py has it.
    Paper: Chan, Golub and LeVeque 1983.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    tile = tl.program_id(0) // blocks
    channel = (tl.program_id(0) % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    image = (tile // tiles).to(tl.int64)
    pixel = (tile % tiles) * ROWS + tl.arange(0, ROWS)
    inside, known = pixel < pixels, channel < channels
    held = inside[:, None] & known[None, :]
    at = (image * pixels + pixel)[:, None] * channels + channel[None, :]
    value = tl.load(x + at, mask=held, other=0.0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        place = image * residual_batch + (pixel // width).to(tl.int64) * residual_line
        place += (pixel % width).to(tl.int64) * residual_pixel
        place = place[:, None] + channel.to(tl.int64)[None, :] * residual_channel
        value += tl.load(residual + place, mask=held, other=0.0).to(tl.float32)
    if y is not None:
        result = activate(value, slope, ACTIVATION, ROUNDED).to(y.dtype.element_ty)
        tl.store(y + at, result, mask=held)
        value = result.to(tl.float32)
    if statistics is not None:
        store_statistics(statistics, value, inside, tile, channel, channels)


def finish(x: Tensor, epilogue: Epilogue) -> tuple[Tensor, Tensor | None]:
    """``activation(x + bias + residual)`` in the memory of x, and its statistics.

    Args:
        x: (N, C, H, W), channels_last.
        epilogue: without a projection; one that changes nothing is no pass.

    Returns:
        The result, and (N, tiles, 3, channels) statistics or None.
    """
    bias, residual, activation = epilogue.bias, epilogue.residual, epilogue.activation
    changes = any(part is not None for part in (bias, residual, activation))
    if not changes and not epilogue.statistics:
        return x, None
    batch, channels, height, width = x.shape
    tiles = cdiv(height * width, ROWS)
    y = x.to(written_dtype(x.dtype)) if changes else None
    statistics = None
    if epilogue.statistics:
        statistics = x.new_empty((batch, tiles, 3, channels), dtype=torch.float32)
    run(
        finish_kernel,
        batch * tiles * cdiv(channels, CHANNELS),
        x,
        *(x, vector(bias), residual, y, statistics, height * width, channels, tiles, width),
        *(residual.stride() if residual is not None else (0, 0, 0, 0)),
        epilogue.slope,
        ACTIVATION=activation,
        ROUNDED=x.element_size() == 2,
        ROWS=ROWS,
        CHANNELS=CHANNELS,
        warps=WARPS,
    )
    return x if y is None else y.to(x.dtype), statistics


def _config(name: str, dtype: str, **special: Any) -> Config:
    known: dict[str, Any] = {
        **dict.fromkeys(("x", "bias", "residual", "y"), f"*{dtype}:16"),
        "statistics": "*fp32:16",
        "channels": "i32:16",
        "residual_channel": 1,
        **dict.fromkeys(("residual_batch", "residual_line", "residual_pixel"), "i32:16"),
        "slope": "fp32",
        "ACTIVATION": tl.constexpr("silu"),
        "ROUNDED": dtype != "fp32",
        "ROWS": ROWS,
        "CHANNELS": CHANNELS,
    }
    arguments = {key: (known | special).get(key, "i32") for key in finish_kernel.arg_names}
    return Config(f"conv finish {name} {dtype}", finish_kernel, arguments, warps=WARPS)


AOT_CONFIGS = [
    *(_config("everything", dtype) for dtype in ("bf16", "fp32")),
    _config("bias", "fp16", residual=None, statistics=None, ACTIVATION=None),
    _config("statistics", "bf16", bias=None, residual=None, y=None, ACTIVATION=None),
]
