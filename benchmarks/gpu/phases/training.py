"""Training steps against eager PyTorch, and their memory: bfloat16 autocast, float32 weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import autoencoder
from benchmarks.gpu.phase import Context, Row, brief
from vaekernels.bench import eager_kl
from vaekernels.bench.memory import peak_bytes
from vaekernels.bench.models import DCGAN
from vaekernels.bench.timing import Call, columns, graph_replay, timings
from vaekernels.bench.training_steps import Side, TrainingStep, of_vae
from vaekernels.models import VAE, AutoencoderKL, VAEConfig


def run(context: Context) -> Iterator[Row]:
    torch.backends.cudnn.benchmark = True
    works = [
        ("conv_vae 64 b64", lambda seconds: convolutional(context, seconds)),
        ("autoencoder_kl 256 b8", lambda seconds: autoencoder_kl(context, seconds)),
    ]
    yield from context.each(
        works, lambda work: work[0], lambda work, seconds: work[1](seconds), most=8.0, start=8.0
    )


def convolutional(context: Context, seconds: float) -> Row:
    """A DCGAN-like VAE of 64 pixels."""
    torch.manual_seed(0)
    config, batch = DCGAN.config, DCGAN.batch
    if context.tiny:
        config, batch = VAEConfig(image_shape=(1, 8, 8), latent_dim=4, hidden=(8, 8)), 2
    model = VAE(config).to(context.device)
    model.check_range = False  # it synchronises with the GPU
    images = torch.rand(batch, *config.image_shape, device=context.device)
    step = of_vae(model, images, DCGAN.lr, autocast=torch.bfloat16)
    return measure(step, images, seconds, graphed=context.device == "cuda")


def autoencoder_kl(context: Context, seconds: float, *, compiled: bool = False) -> Row:
    """The autoencoder of Stable Diffusion, 8 images of 256 pixels; checked on one of 128."""
    model = autoencoder.model(context, torch.float32).train().requires_grad_()
    size, batch = (16, 2) if context.tiny else (256, 8)
    images = torch.rand(batch, 3, size, size, device=context.device) * 2 - 1
    checked = images[:1, :, : size // 2, : size // 2].contiguous()
    small = checked.shape[-1] // model.downscaling
    step = TrainingStep(
        model=model,
        eager=eager_kl.from_model,
        our_loss=_our_kl_loss,
        eager_loss=eager_kl.loss,
        images=images,
        latents=(model.latent_channels, small, small),
        lr=1e-4,
        autocast=torch.bfloat16,
    )
    return measure(step, checked, seconds, compiled=compiled)


def measure(
    step: TrainingStep,
    checked: Tensor,
    seconds: float,
    *,
    compiled: bool = False,
    graphed: bool = False,
) -> Row:
    """Check the gradients, then time steps; a wrong model of ours is not timed.

    Args:
        step: the model and its step.
        checked: the images of the check, in float64.
        seconds: of measuring.
        compiled: against torch.compile in channels_last; else against eager in both layouts.
        graphed: measure all sides as CUDA graphs too.

    Returns:
        A row: the columns of the verdict, on the L2 distance of all gradients from float64;
        ``ms`` and ``spread``; ``peak_bytes`` of a step beyond weights and optimizer;
        ``graph_failed`` where a capture failed.
    """
    verdict = step.check(checked)
    row: Row = {"batch": len(step.images), **verdict.row()}
    if compiled:
        sides = {"compile": step.plain("channels_last", compiled=True), "ours": step.ours()}
    else:
        sides = step.sides()
    if not verdict.ok:
        del sides["ours"]
    calls: dict[str, Call] = {name: step.call(side) for name, side in sides.items()}
    row["peak_bytes"] = {name: peak_bytes(call) for name, call in calls.items()}
    for name, side in (step.sides() if graphed else {}).items():
        if name not in sides:
            continue
        title = "ours_graph" if name == "ours" else name.replace("eager", "graphed")
        try:
            calls[title] = _graphed(step, side)
        except RuntimeError as failure:
            row.setdefault("graph_failed", {})[title] = brief(failure)
    return {**row, **columns(timings(calls, seconds=seconds, min_rounds=5))}


def _graphed(step: TrainingStep, side: Side) -> Call:
    return graph_replay(lambda side: step.call(side, graph=True), [side], "cuda")


def _our_kl_loss(model: AutoencoderKL, images: Tensor, seed: int | None = None) -> Tensor:
    """``eager_kl.loss`` by ours."""
    z, kl = model.encode(images).latent_dist.rsample_kl(seed=seed)
    return F.mse_loss(model.decode(z).sample, images) + 1e-6 * kl.sum() / len(images)
