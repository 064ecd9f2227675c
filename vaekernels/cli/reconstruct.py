"""``vaekernels reconstruct``."""

from __future__ import annotations

from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


@app.command()
def reconstruct(
    run: _options.Run,
    data: _options.Data,
    *,
    out: _options.Png,
    count: Annotated[int, typer.Option("-n", "--count", help="How many images.")] = 40,
    columns: _options.Columns = 10,
    part: Annotated[
        str, typer.Option(help="Which images: heldout, train (of the run) or all.")
    ] = "heldout",
    device: _options.Device = "auto",
) -> None:
    """Show images of DATA and, below each, what the model in RUN makes of them: a PNG grid.

    The images are spread evenly over DATA; the reconstruction is decoded from the mean of the
    posterior.
    """
    from vaekernels.cli._runs import load_model, load_part
    from vaekernels.models.registry import ImageAutoencoder
    from vaekernels.training.diagnostics import reconstructions
    from vaekernels.utils.image_grid import grid, save_png, stack_rows

    _options.at_least_one("-n", count)
    _options.at_least_one("--columns", columns)
    path = _options.output_file(out, ".png")
    model = load_model(run, device, "reconstruct", ImageAutoencoder)
    images = load_part(run, model, data, part)
    originals, decoded = reconstructions(model, images, count)
    columns = min(columns, len(originals))
    save_png(grid(stack_rows(originals, decoded, columns), columns), path)
    typer.echo(f"wrote {path}: {len(originals)} images over their reconstructions")
