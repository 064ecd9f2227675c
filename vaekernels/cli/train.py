"""``vaekernels train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app

_MODEL = ("latent_dim", "backbone", "hidden", "likelihood", "scale", "activation")
_READING = ("background", "strict", "workers", "lazy")
# Hidden sizes where none are given.
_HIDDEN = {"conv": (32, 64), "mlp": (400,)}


@app.command()
def train(
    ctx: typer.Context,
    data: _options.Data,
    *,
    out: Annotated[Path, typer.Option(help="The run folder to write.", show_default=False)],
    backbone: Annotated[str, typer.Option(help="conv or mlp.")] = "conv",
    hidden: Annotated[
        str | None,
        typer.Option(
            help="conv: channels of each level, every level halves the image; mlp: widths.",
            show_default="32,64 for conv, 400 for mlp",
        ),
    ] = None,
    latent_dim: Annotated[int, typer.Option(help="Size of the latent vector.")] = 16,
    likelihood: Annotated[
        str, typer.Option(help="Of a pixel: bernoulli, gaussian or laplace.")
    ] = "bernoulli",
    scale: Annotated[
        str, typer.Option(help="Of the gaussian or laplace likelihood: a number, or learned.")
    ] = "1",
    activation: Annotated[str, typer.Option(help="relu, silu, leaky_relu or tanh.")] = "relu",
    image_size: Annotated[
        str | None,
        typer.Option(
            help="SIZE or HEIGHTxWIDTH: resize every image to cover it and crop the centre.",
            show_default="as they are",
        ),
    ] = None,
    background: Annotated[
        str, typer.Option(help="Of a folder: the colour below transparent pixels, as #ff8000.")
    ] = "white",
    strict: Annotated[
        bool, typer.Option(help="Of a folder: stop at a broken image, or leave it out.")
    ] = True,
    lazy: Annotated[
        bool | None,
        typer.Option(
            "--lazy/--no-lazy",
            help="Of a folder: decode images batch by batch, in bounded memory.",
            show_default="if they would fill half of the memory",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Of a folder: processes that decode images.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch: Annotated[int, typer.Option(help="Images per step, over all processes together.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    beta: Annotated[float, typer.Option(help="Weight of the KL term; 1 is the ELBO.")] = 1.0,
    kl_warmup_epochs: Annotated[
        float, typer.Option("--kl-warmup", help="Epochs in which that weight grows from 0.")
    ] = 0.0,
    free_bits: Annotated[
        float, typer.Option(help="Nats of KL per latent dim that cost nothing.")
    ] = 0.0,
    grad_clip: Annotated[
        float, typer.Option(help="Largest norm of the gradient; 0 does not clip.")
    ] = 0.0,
    amp: Annotated[str, typer.Option(help="Mixed precision: off, bf16 or fp16.")] = "off",
    heldout: Annotated[
        float, typer.Option(help="Fraction held out, where DATA has no x_test of its own.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(help="Decides initial weights, order of the images, and noise.")
    ] = 0,
    device: _options.Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last finished epoch in --out.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is in --out.")
    ] = False,
) -> None:
    """Train a VAE on DATA and write it to --out, with a checkpoint after every epoch.

    With --resume, options that are not given are those the run was started with; --epochs may
    grow. Several processes: torchrun --nproc-per-node N -m vaekernels.cli train ...
    """
    from vaekernels.models import VAEConfig
    from vaekernels.training import RunFolder, TrainConfig, load_images, train

    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    options = _read(ctx.params)
    stored: dict[str, Any] = {"train": {}, "model": {}, "data": {}}
    if resume:
        stored = RunFolder(out).settings()
        options = {name: value for name, value in options.items() if _is_given(ctx, name)}
    model_options = {name: options.pop(name) for name in _MODEL if name in options}
    config = TrainConfig.from_dict({**stored["train"], **options})
    size, channels = _options.image_size(image_size), None
    if resume and size is None:
        channels, height, width = VAEConfig.from_dict(stored["model"]).image_shape
        size = height, width
    given = [name for name in _READING if not resume or _is_given(ctx, name)]
    reading = {**stored["data"].get("options", {}), **{name: ctx.params[name] for name in given}}
    images = load_images(data, size, channels, **{"lazy": None, **reading})
    model = VAEConfig.from_dict({**stored["model"], "image_shape": images.shape, **model_options})
    folder = train(images, model, config, out, resume=resume, overwrite=overwrite)
    typer.echo(f"wrote {folder.path}")


def _read(params: dict[str, Any]) -> dict[str, Any]:
    """The settings among the options, with texts read."""
    ours = {"ctx", "data", "out", "image_size", "resume", "overwrite", *_READING}
    options = {name: value for name, value in params.items() if name not in ours}
    hidden, backbone = options["hidden"], options["backbone"]
    options["hidden"] = (
        _HIDDEN.get(backbone, ()) if hidden is None else _options.sizes("--hidden", hidden)
    )
    if options["scale"] != "learned":
        try:
            options["scale"] = float(options["scale"])
        except ValueError as error:
            raise ValueError(
                f"--scale must be a number or learned; got {options['scale']!r}"
            ) from error
    return options


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
