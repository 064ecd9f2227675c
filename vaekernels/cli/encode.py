"""``vaekernels encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app


@app.command()
def encode(
    run: _options.Run,
    data: _options.Data,
    *,
    out: Annotated[Path, typer.Option(help="The .safetensors file.", show_default=False)],
    part: Annotated[
        str, typer.Option(help="Which images: all, or the train or heldout ones of the run.")
    ] = "all",
    batch: Annotated[int, typer.Option(help="Images at once.")] = 256,
    device: _options.Device = "auto",
) -> None:
    """Encode DATA with the model in RUN: posterior means and log variances, ids and labels.

    A latent is drawn from them with vk.DiagonalGaussian.from_mean_logvar(mean, logvar)
    .sample(seed=..., sample_ids=ids).
    """
    from vaekernels.cli._runs import load_model, load_part, provenance
    from vaekernels.models.checkpoint_io import safetensors_bytes
    from vaekernels.models.registry import ImageAutoencoder
    from vaekernels.training.diagnostics import moments
    from vaekernels.utils.atomic_file import atomic_write

    _options.at_least_one("--batch", batch)
    path = _options.output_file(out, ".safetensors")
    model = load_model(run, device, "encode", ImageAutoencoder)
    images = load_part(run, model, data, part)
    mean, logvar = moments(model, images, batch=batch, progress=True)
    tensors = {"mean": mean, "logvar": logvar, "ids": images.ids}
    if images.labels is not None:
        tensors["labels"] = images.labels
    with atomic_write(path) as file:
        file.write(safetensors_bytes(tensors, provenance(run, model, images, part)))
    typer.echo(f"wrote {path}: {len(images)} latents of {mean.shape[1]} dims")
