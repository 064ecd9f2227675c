"""``vaekernels bench``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vaekernels.cli._app import app


class Suite(str, Enum):
    """What can be measured."""

    LATENT = "latent"


class Dtype(str, Enum):
    """Of the inputs."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command()
def bench(
    suite: Annotated[Suite, typer.Argument(help="What to measure.")] = Suite.LATENT,
    *,
    json: Annotated[Path | None, typer.Option("--json", help="Write the record here.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of measuring per row.")] = 0.5,
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads; default: torch's.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Of the inputs.")] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """What this machine gains against eager PyTorch: interleaved in one process, medians."""
    import torch
    from tqdm import tqdm

    from vaekernels import machine
    from vaekernels.bench import latent, report

    if not seconds > 0:
        raise ValueError(f"--seconds must be positive; got {seconds}")
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads must be at least 1; got {threads}")
        torch.set_num_threads(threads)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch finds no CUDA device")
    measured = latent.run(device=device, dtype=getattr(torch, dtype.value), seconds=seconds)
    rows = list(tqdm(measured, total=latent.count(), desc="measuring", unit="row"))
    described = machine.describe()
    report.print_table(rows, described)
    if json is not None:
        settings = {"suite": suite.value, "dtype": dtype.value, "seconds": seconds}
        report.write_json(json, rows, described, settings)
        typer.echo(f"wrote {json}")
