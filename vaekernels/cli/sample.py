"""``vaekernels sample``."""

from __future__ import annotations

from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


@app.command()
def sample(
    run: _options.Run,
    *,
    out: _options.Png,
    count: Annotated[int, typer.Option("-n", "--count", help="How many images.")] = 64,
    columns: _options.Columns = 8,
    seed: _options.Seed = 0,
    device: _options.Device = "auto",
) -> None:
    """Draw new images from the model in RUN: a PNG grid."""
    from vaekernels.cli._runs import load_model
    from vaekernels.models.registry import SampledModel
    from vaekernels.utils.image_grid import grid, save_png

    _options.at_least_one("-n", count)
    _options.at_least_one("--columns", columns)
    path = _options.output_file(out, ".png")
    model = load_model(run, device, "sample", SampledModel)
    _options.check_pictures("-n", count, model.config.image_shape)
    save_png(grid(model.sample(count, seed=seed), columns), path)
    typer.echo(f"wrote {path}: {count} samples")
