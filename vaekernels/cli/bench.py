"""``vaekernels bench``."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app

if TYPE_CHECKING:
    from vaekernels.bench.suites import Suite


class SuiteName(str, Enum):
    """Name of a suite."""

    LATENT = "latent"
    CONV = "conv"
    MODELS = "models"
    AUTOENCODERS = "autoencoders"


class Dtype(str, Enum):
    """Dtype of the inputs."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command()
def bench(
    suite: Annotated[
        SuiteName,
        typer.Argument(
            help="Latent ops and losses; convolutions and GroupNorm + SiLU; training steps; "
            "autoencoders of latent diffusion."
        ),
    ] = SuiteName.LATENT,
    *,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the record to this file.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Measure only this group; may be repeated."),
    ] = None,
    list_rows: Annotated[bool, typer.Option("--list", help="List the rows and exit.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for each row.")] = 0.5,
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads; default: torch's.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Dtype of the inputs (latent).")
    ] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N (latent).")] = "cpu",
) -> None:
    """Compare this machine's speed with eager PyTorch: interleaved in one process, medians.

    Every row is checked against float64 first. A row whose result fails its accuracy check is not
    timed, and the command exits with 1.
    """
    import torch

    from vaekernels.bench import tables
    from vaekernels.bench.suites import SUITES
    from vaekernels.runtime import cpu_info
    from vaekernels.training.distributed import choose_device

    chosen = SUITES[suite.value]
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive; got {seconds}")
    if threads is not None:
        _options.at_least_one("--threads", threads)
    for group in only or ():
        if group not in chosen.groups:
            raise ValueError(f"--only must be one of {', '.join(chosen.groups)}; got {group!r}")
    settings: dict[str, Any] = {"device": device, "dtype": getattr(torch, dtype.value)}
    for name, given in settings.items():
        if name not in chosen.takes and given not in ("cpu", torch.float32):
            raise ValueError(f"--{name} is of bench latent; bench {suite.value} got {given}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device")
    choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    works = chosen.works(only or (), **{name: settings[name] for name in chosen.takes})
    if list_rows:
        for work in works:
            typer.echo(f"{work.group}: {work.name}")
        return
    described = cpu_info.describe()
    rows = _measured(chosen, works, seconds, described)
    chosen.show(rows, described)
    if json is not None:
        how = {"suite": suite.value, "dtype": dtype.value, "seconds": seconds, "only": only or []}
        tables.write_json(json, rows, described, how, chosen.summary(rows))
        typer.echo(f"wrote {json}")
    if any(row.get("wrong") for row in rows):
        raise typer.Exit(1)


def _measured(
    suite: Suite, works: Any, seconds: float, described: dict[str, Any]
) -> list[dict[str, Any]]:
    """Measure every row and log it; an interruption prints the rows that are done."""
    from tqdm import tqdm

    from vaekernels.bench import tables

    rows: list[dict[str, Any]] = []
    try:
        with tqdm(works, desc="measuring", unit="row") as bar:
            for work in bar:
                row = suite.measure(work, seconds=seconds)
                rows.append(row)
                bar.write(tables.line(suite.cells(row)), file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        if rows:
            suite.show(rows, described)
        message = f"interrupted after {len(rows)} of {len(works)} rows; no record was written"
        raise KeyboardInterrupt(message) from interrupt
    return rows
