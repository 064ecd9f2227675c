"""``vaekernels demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training digits.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
    device: _options.Device = "auto",
) -> None:
    """Train a VAE on 5,000 real digits, show it, and compare our ops with eager PyTorch.

    Writes pictures, the model and report.html; replaces those of an earlier demo.
    """
    from vaekernels.demo import Settings, run
    from vaekernels.training import TrainingInterrupted, load_images

    settings = Settings(epochs=epochs, seed=seed, device=device)
    try:
        report = run(load_images("mnist5k"), out, settings, say=typer.echo)
    except TrainingInterrupted as interrupt:
        # The demo has no --resume.
        raise KeyboardInterrupt("interrupted; the same command starts anew") from interrupt
    typer.echo(f"wrote {report}: open it in a browser")
