"""Both sides must compute the same numbers from the same noise before they are timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vaekernels.backends.registry import use_backend
from vaekernels.bench import eager_vae
from vaekernels.demo.measure import encode, encode_eager
from vaekernels.demo.settings import Settings
from vaekernels.models import VAE
from vaekernels.ops import randn
from vaekernels.training import ImageData, evaluate
from vaekernels.training.schedule import permutation

# Relative. Rounding stays well below it over some dozens of steps.
TOLERANCE = 1e-4

# Model, images and noise (None: torch's own) to the loss.
Loss = Callable[[eager_vae.EagerVAE, Tensor, Tensor | None], Tensor]


class ParityError(ArithmeticError):
    """Eager PyTorch and ours differ: a fault of this package."""


def check_training(
    data: ImageData,
    settings: Settings,
    device: torch.device,
    eager_loss: Loss = eager_vae.loss,
) -> float:
    """Train twice from the same weights, on the same batches, with the same noise.

    Args:
        data: the training images.
        settings: model, seed, and for how many steps.
        device: where.
        eager_loss: the loss in plain PyTorch.

    Returns:
        The largest relative difference between the losses of a step.

    Raises:
        ParityError: it is above ``TOLERANCE``.
    """
    torch.manual_seed(settings.seed)
    ours = VAE(settings.model_config(data)).to(device)
    eager = eager_vae.from_model(ours)
    optimizers = [
        torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True) for model in (ours, eager)
    ]
    worst = 0.0
    batches = islice(_batches(data, settings), settings.parity_steps)
    for step, index in enumerate(batches):
        images, ids = data.batch(index, device), data.ids[index].to(device)
        noise: dict[str, Any] = {"seed": settings.seed, "step": step, "sample_ids": ids}
        shape = (len(ids), settings.latent_dim)
        eps = randn(shape, device=device, dtype=torch.float32, **noise)
        losses = ours(images, **noise).loss, eager_loss(eager, images, eps)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        our_loss, their_loss = (loss.item() for loss in losses)
        difference = abs(our_loss - their_loss) / abs(their_loss)
        _check(difference, f"loss at step {step}", our_loss, their_loss)
        worst = max(worst, difference)
    return worst


def check_encoding(model: VAE, data: ImageData, settings: Settings) -> float:
    """Encode ``data`` twice with the same noise.

    Returns:
        The largest difference between two latents, relative to the largest latent.

    Raises:
        ParityError: it is above ``TOLERANCE``.
    """
    eps = randn(
        (len(data), model.config.latent_dim),
        seed=settings.seed,
        sample_ids=data.ids.to(model.device),
        device=model.device,
        dtype=model.dtype,
    )
    eager = encode_eager(eager_vae.from_model(model), data, settings, eps)
    ours = encode(model, data, settings)
    difference = ((ours - eager).abs().max() / eager.abs().max()).item()
    at = int((ours - eager).abs().argmax())
    _check(difference, f"latent {at}", ours.flatten()[at].item(), eager.flatten()[at].item())
    return difference


def check_evaluation(model: VAE, heldout: ImageData, settings: Settings, logged: float) -> float:
    """Compare the logged held-out ELBO with that of the saved weights in plain PyTorch.

    Args:
        model: with the weights that were saved.
        heldout: the held-out images.
        settings: batch size and seed of the training.
        logged: the held-out ELBO in the history's record of these weights.

    Returns:
        Its relative difference from the ELBO of the same weights on the reference backend.

    Raises:
        ParityError: it is above ``TOLERANCE``.
    """
    with use_backend("reference"):
        expected = evaluate(
            model, heldout, batch=settings.batch, seed=settings.seed, device=model.device
        ).elbo
    difference = abs(logged - expected) / abs(expected)
    _check(difference, "held-out ELBO", logged, expected)
    return difference


def _batches(data: ImageData, settings: Settings) -> Iterator[Tensor]:
    """The batches of training, epoch after epoch."""
    epoch = 1
    while True:
        yield from permutation(settings.seed, epoch, len(data)).split(settings.batch)
        epoch += 1


def _check(difference: float, what: str, ours: float, eager: float) -> None:
    if not (math.isfinite(difference) and difference <= TOLERANCE):
        raise ParityError(
            f"{what}: ours gives {ours!r}, eager PyTorch {eager!r} from the same weights and "
            f"noise: a relative difference of {difference:.3g}, above {TOLERANCE:g}"
        )
