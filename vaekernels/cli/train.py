"""``vaekernels train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from vaekernels.cli import _options
from vaekernels.cli._app import app
from vaekernels.cli._settings_file import check_keys, read_settings

_MODEL = ("latent_dim", "backbone", "hidden", "likelihood", "scale", "activation")
_READING = ("background", "strict", "workers", "lazy")


@app.command()
def train(
    ctx: typer.Context,
    data: _options.Data,
    *,
    out: Annotated[Path, typer.Option(help="The run folder to write.", show_default=False)],
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of settings, in tables model, run, data, optim, schedule and "
            "objective; options on the command line take precedence.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Kind of model; the options up to --activation are a VAE's.")
    ] = "vae",
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
    optimizer: Annotated[
        str,
        typer.Option(help="adam, adamw, nadam, radam, adagrad, rmsprop or sgd, of torch.optim."),
    ] = "adam",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    schedule: Annotated[
        str,
        typer.Option(help="Of the learning rate: constant; cosine or linear: falls to 0."),
    ] = "constant",
    lr_warmup_epochs: Annotated[
        float, typer.Option("--lr-warmup", help="Epochs in which the learning rate grows from 0.")
    ] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="Of the optimizer.")] = 0.0,
    momentum: Annotated[float, typer.Option(help="Of sgd and rmsprop.")] = 0.0,
    objective: Annotated[
        str, typer.Option(help="elbo, or iwae: the importance weighted bound.")
    ] = "elbo",
    importance_samples: Annotated[
        int, typer.Option(help="Of iwae: samples of each image's posterior.")
    ] = 5,
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
    accumulate: Annotated[
        int, typer.Option(help="Parts that a batch is computed in, to save memory.")
    ] = 1,
    ema: Annotated[
        float,
        typer.Option(
            help="Decay of a moving average of the weights, which is evaluated and saved; 0: none."
        ),
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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log to OUT/tensorboard.")
    ] = False,
) -> None:
    """Train a model on DATA and write it to --out, with a checkpoint after every epoch.

    With --resume, options that are not given are those the run was started with; --epochs may
    grow if the learning rate is constant. Several processes: torchrun --nproc-per-node N -m
    vaekernels.cli train ...
    """
    from vaekernels.models.registry import TrainableModel, check_supports, model_class
    from vaekernels.training import RunFolder, TrainConfig, load_images, train

    if resume and overwrite:
        raise ValueError("expected --resume or --overwrite, got both")
    given = _given(ctx)
    of_file, train_of_file = ({}, {}) if config is None else read_settings(config)
    stored: dict[str, Any] = {"train": {}, "model": {}, "kind": "vae", "data": {}}
    if resume:
        stored = RunFolder(out).settings()
    kind = given.pop("model", of_file.pop("kind", stored["kind"]))
    chosen = model_class(kind)
    check_supports(chosen, "train", TrainableModel, "image_shape")
    fields = [field.name for field in dataclasses.fields(chosen.config_class)]
    fields.remove("image_shape")
    check_keys(f"{config}: keys of [model]", of_file, ["kind", *fields])
    of_options = {name: given.pop(name) for name in _MODEL if name in given}
    check_keys(f"settings of the model {kind}", of_options, fields)
    settings = TrainConfig.from_dict({**stored["train"], **train_of_file, **given})
    values = {**(stored["model"] if kind == stored["kind"] else {}), **of_file, **of_options}
    if "latent_dim" in fields:
        values.setdefault("latent_dim", latent_dim)
    if values.get("backbone") == "mlp":
        values.setdefault("hidden", (400,))
    size, channels = _options.image_size(image_size), None
    if resume and size is None:
        channels, height, width = stored["model"]["image_shape"]
        size = height, width
    named = [name for name in _READING if not resume or _is_given(ctx, name)]
    reading = {**stored["data"].get("options", {}), **{name: ctx.params[name] for name in named}}
    images = load_images(data, size, channels, **{"lazy": None, **reading})
    model_config = chosen.config_class.from_dict({**values, "image_shape": images.shape})
    folder = train(
        images,
        model_config,
        settings,
        out,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
    )
    typer.echo(f"wrote {folder.path}")


def _given(ctx: typer.Context) -> dict[str, Any]:
    """The settings that are on the command line, with texts read."""
    others = {"ctx", "data", "out", "config", "image_size", "resume", "overwrite", "tensorboard"}
    others |= set(_READING)
    given = {name: value for name, value in ctx.params.items() if _is_given(ctx, name)}
    given = {name: value for name, value in given.items() if name not in others}
    if "hidden" in given:
        given["hidden"] = _options.sizes("--hidden", given["hidden"])
    if given.get("scale", "learned") != "learned":
        try:
            given["scale"] = float(given["scale"])
        except ValueError as error:
            raise ValueError(
                f"--scale must be a number or learned; got {given['scale']!r}"
            ) from error
    return given


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
