"""``vaekernels traverse``."""

from __future__ import annotations

from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


@app.command()
def traverse(
    run: _options.Run,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Images to start from, and to order the latent dims by their mean KL.",
            show_default=False,
        ),
    ] = None,
    *,
    out: _options.Png,
    dims: Annotated[int, typer.Option(help="Latent dims to show: rows.")] = 10,
    values: Annotated[int, typer.Option(help="Values of each dim: columns.")] = 9,
    extent: Annotated[
        float, typer.Option(help="Values go from -EXTENT to EXTENT; the prior's deviation is 1.")
    ] = 3.0,
    image: Annotated[
        int | None, typer.Option(help="The image of DATA to start from; 0 without.")
    ] = None,
    device: _options.Device = "auto",
) -> None:
    """Show what each latent dim of the model in RUN does: a PNG grid, a row for each dim.

    Without DATA the other dims are 0, the prior's mean; with DATA they are those of an image,
    and the dims that carry most come first.
    """
    import math

    import torch

    from vaekernels.cli._runs import load_model, load_part
    from vaekernels.models.registry import ImageAutoencoder
    from vaekernels.training.diagnostics import kl_per_dim, traversal
    from vaekernels.utils.image_grid import grid, save_png
    from vaekernels.utils.limits import LARGEST_FLOAT

    _options.at_least_one("--dims", dims)
    if _options.at_least_one("--values", values) < 2:
        raise ValueError(f"--values must be at least 2; got {values}")
    if not (math.isfinite(extent) and extent > 0):
        raise ValueError(f"--extent must be positive; got {extent}")
    if extent > LARGEST_FLOAT:
        raise ValueError(f"--extent must be at most {LARGEST_FLOAT:.3g}; got {extent}")
    if image is not None and data is None:
        raise ValueError(f"--image {image} needs DATA, whose image it is")
    path = _options.output_file(out, ".png")
    model = load_model(run, device, "traverse", ImageAutoencoder, "latent_dim")
    rows = min(dims, model.config.latent_dim)
    _options.check_pictures("--values", rows * values, model.config.image_shape)
    start, order = None, list(range(model.config.latent_dim))
    if data is not None:
        images = load_part(run, model, data, "all")
        image = 0 if image is None else image
        if not 0 <= image < len(images):
            raise ValueError(f"--image must be in [0, {len(images)}); got {image}")
        start = images.get(torch.tensor([image])).x
        kl = kl_per_dim(model, images)
        order = kl.argsort(descending=True).tolist()
    order = order[:dims]
    save_png(grid(traversal(model, order, values, extent, start), values), path)
    names = ", ".join(str(dim) if data is None else f"{dim} ({kl[dim]:.2f})" for dim in order)
    typer.echo(f"wrote {path}: rows are the latent dims {names}")
