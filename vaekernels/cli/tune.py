"""``vaekernels tune``."""

from __future__ import annotations

import functools
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


class Preset(str, Enum):
    """The autoencoders whose convolutions can be measured."""

    SD = "sd"
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"


@app.command()
def tune(
    *,
    model: Annotated[
        Preset, typer.Option("--model", help="Measure the convolutions of this autoencoder.")
    ] = Preset.SD,
    shapes: Annotated[
        Path | None,
        typer.Option("--shapes", help="Measure the convolutions of this JSON list instead."),
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Height and width of the images.")] = 512,
    batch: Annotated[int, typer.Option("--batch", help="Batch size.")] = 1,
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help='bfloat16, float16, float32, or tf32: float32 in the tier "medium".'
        ),
    ] = "bfloat16",
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Measure the gradients of inputs and weights, too.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure convolutions again that are in the table.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The table; default: $VAEKERNELS_TUNING, or one in the cache directory.",
        ),
    ] = None,
) -> None:
    """Measure the algorithms of each convolution on this GPU, and write the autotuning table.

    Each result is saved immediately: an interrupted run continues where it stopped.
    """
    import torch
    from tqdm import tqdm

    if not torch.cuda.is_available():
        raise ValueError("tune measures on a GPU, and torch finds no CUDA device")

    from vaekernels.backends.triton.conv import autotune_table
    from vaekernels.runtime import conv_autotune

    for option, value in (("--size", size), ("--batch", batch)):
        _options.at_least_one(option, value)
    preset = "sd1" if model is Preset.SD else model.value
    listed = (
        conv_autotune.model_shapes(preset, size, batch, dtype)
        if shapes is None
        else conv_autotune.read_shapes(shapes)
    )
    path = out or autotune_table.user_path()
    wanted = conv_autotune.jobs(listed, gradients, "cuda")
    measure = functools.partial(
        conv_autotune.measure, device="cuda", timer=conv_autotune.time_on_gpu
    )
    with torch.no_grad():
        entries = conv_autotune.tune(
            *(wanted, path, measure, again),
            functools.partial(tqdm, desc="measuring", unit="convolution"),
        )
    tap_gemm = sum(entry.algorithm == autotune_table.TAP_GEMM for entry in entries.values())
    typer.echo(f"wrote {path}: {len(entries)} convolutions, {tap_gemm} by the tap-GEMM")
