"""Both sides must give the same numbers from the same noise, or no time of theirs counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from vaekernels.backends.registry import use_backend
from vaekernels.demo import eager, ours
from vaekernels.demo.settings import Settings
from vaekernels.models import VAE
from vaekernels.ops import randn
from vaekernels.training import ImageData, evaluate
from vaekernels.training.schedule import permutation

# Relative. Rounding, the convolutions' own included, stays well below over some dozens of steps.
TOLERANCE = 1e-4


class ParityError(ArithmeticError):
    """Eager PyTorch and ours differ: one of them is wrong. Never the user's fault."""


def check_training(
    data: ImageData,
    settings: Settings,
    device: torch.device,
    eager_loss: eager.Loss = eager.loss,
) -> float:
    """Train twice from the same weights, on the same batches, with the same noise.

    Args:
        data: the training images.
        settings: model, seed, and for how many steps.
        device: where.
        eager_loss: the other side.

    Returns:
        The largest relative difference between the losses of a step.

    Raises:
        ParityError: it is above ``TOLERANCE``.
    """
    torch.manual_seed(settings.seed)
    mine = VAE(settings.model_config(data)).to(device)
    theirs = eager.twin(mine)
    their_optimizer, my_optimizer = (
        torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True) for model in (theirs, mine)
    )
    worst = 0.0
    batches = islice(_batches(data, settings), settings.parity_steps)
    for step, index in enumerate(batches):
        images, ids = data.batch(index, device), data.ids[index].to(device)
        seed = settings.seed
        shape = (len(ids), settings.latent_dim)
        eps = randn(shape, seed=seed, step=step, sample_ids=ids, device=device, dtype=torch.float32)
        their_loss = _step(their_optimizer, eager_loss(theirs, images, eps))
        my_loss = _step(my_optimizer, ours.loss(mine, images, seed=seed, step=step, sample_ids=ids))
        difference = abs(my_loss - their_loss) / abs(their_loss)
        _check(difference, f"loss at step {step}", my_loss, their_loss)
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
    theirs = eager.encode(eager.twin(model), data, settings.encode_batch, eps)
    mine = ours.encode(model, data, settings.encode_batch, seed=settings.seed)
    difference = ((mine - theirs).abs().max() / theirs.abs().max()).item()
    at = int((mine - theirs).abs().argmax())
    _check(difference, f"latent {at}", mine.flatten()[at].item(), theirs.flatten()[at].item())
    return difference


def check_evaluation(model: VAE, heldout: ImageData, settings: Settings, logged: float) -> float:
    """The held-out ELBO that training logged is that of the saved weights in plain PyTorch.

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
        right = evaluate(
            model, heldout, batch=settings.batch, seed=settings.seed, device=model.device
        ).elbo
    difference = abs(logged - right) / abs(right)
    _check(difference, "held-out ELBO", logged, right)
    return difference


def _batches(data: ImageData, settings: Settings) -> Iterator[Tensor]:
    """The batches of training, epoch after epoch."""
    epoch = 1
    while True:
        yield from permutation(settings.seed, epoch, len(data)).split(settings.batch)
        epoch += 1


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _check(difference: float, what: str, mine: float, theirs: float) -> None:
    if not (math.isfinite(difference) and difference <= TOLERANCE):
        raise ParityError(
            f"{what}: ours gives {mine!r}, eager PyTorch {theirs!r} from the same weights and "
            f"noise: a relative difference of {difference:.3g}, above {TOLERANCE:g}"
        )
