"""The same work in eager PyTorch and with our ops, timed in turn."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from vaekernels.bench.timing import interleaved
from vaekernels.demo import eager, ours
from vaekernels.demo.settings import Settings
from vaekernels.distributions import DiagonalGaussian
from vaekernels.models import VAE
from vaekernels.ops import bernoulli_nll
from vaekernels.training import ImageData

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Timing:
    """Median seconds of one piece of work on both sides."""

    name: str
    images: int
    eager: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.eager / self.ours

    def to_dict(self) -> dict[str, str | int | float]:
        """For ``comparison.json``."""
        return {
            "name": self.name,
            "images": self.images,
            "eager_seconds": self.eager,
            "ours_seconds": self.ours,
            "ratio": self.ratio,
        }


@dataclass(frozen=True)
class Comparison:
    """What is measured; the latent ops and losses are a part of the training step."""

    step: Timing
    latent: Timing
    encoding: Timing

    @property
    def rows(self) -> tuple[Timing, ...]:
        """In the order of the report."""
        return self.step, self.latent, self.encoding

    @property
    def latent_share(self) -> float:
        """The part of the eager training step that our ops take the place of."""
        return self.latent.eager / self.step.eager

    @property
    def step_bound(self) -> float:
        """What the step's ratio would be if those ops cost nothing."""
        return self.step.eager / max(self.step.eager - self.latent.eager, 1e-9)


def compare(
    model: VAE, data: ImageData, everything: ImageData, settings: Settings, *, progress: bool
) -> Comparison:
    """Time both sides on ``model``, which is left as it is.

    Args:
        model: trained.
        data: where the batch of the training step comes from.
        everything: the images of the encoding run.
        settings: batch sizes and how long to measure.
        progress: show a bar.
    """
    index = torch.linspace(0, len(data) - 1, settings.batch).round().long()
    images, ids = data.batch(index, model.device), data.ids[index].to(model.device)
    work = (
        ("training step", len(images), _steps(model, images, ids, settings)),
        ("latent ops and losses", len(images), _latent_ops(model, images, ids, settings)),
        ("encoding run", len(everything), _encodings(model, everything, settings)),
    )
    timings = []
    with tqdm(work, unit=" measurement", disable=None if progress else True) as bar:
        for name, count, calls in bar:
            bar.set_description(f"measuring: {name}")
            medians = interleaved(calls, seconds=settings.seconds)
            timings.append(Timing(name, count, medians["eager"], medians["ours"]))
    return Comparison(*timings)


def _steps(model: VAE, images: Tensor, ids: Tensor, settings: Settings) -> Calls:
    """Forward, backward and optimizer, each side on a copy of the weights."""
    numbers = itertools.count()

    def my_loss(mine: VAE) -> Tensor:
        return ours.loss(mine, images, seed=settings.seed, step=next(numbers), sample_ids=ids)

    def their_loss(theirs: VAE) -> Tensor:
        return eager.loss(theirs, images)

    return {
        "eager": _training_step(copy.deepcopy(model), their_loss, settings),
        "ours": _training_step(copy.deepcopy(model), my_loss, settings),
    }


def _training_step(
    model: VAE, loss: Callable[[VAE], Tensor], settings: Settings
) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model).backward()
        optimizer.step()

    return step


def _latent_ops(model: VAE, images: Tensor, ids: Tensor, settings: Settings) -> Calls:
    """What lies between and after the layers, forward and backward, at the step's shapes."""
    with torch.no_grad():
        moments = model.encoder(images)
        logits = model.decoder(moments.chunk(2, dim=1)[0])
    leaves = [moments.requires_grad_(), logits.requires_grad_()]
    # As the decoder's first layer sends it back.
    grad_z = torch.randn_like(moments.detach().chunk(2, dim=1)[0])
    one = torch.ones((), device=images.device)
    numbers = itertools.count()

    def theirs() -> object:
        z, kl = eager.reparameterise(moments)
        loss = (eager.reconstruction_loss(logits, images) + kl) / len(images)
        return torch.autograd.grad([loss, z], leaves, [one, grad_z])

    def mine() -> object:
        z, kl = DiagonalGaussian(moments).rsample_kl(
            seed=settings.seed, step=next(numbers), sample_ids=ids
        )
        loss = (bernoulli_nll(logits, images) + kl).mean()
        return torch.autograd.grad([loss, z], leaves, [one, grad_z])

    return {"eager": theirs, "ours": mine}


def _encodings(model: VAE, data: ImageData, settings: Settings) -> Calls:
    batch = settings.encode_batch
    return {
        "eager": partial(eager.encode, model, data, batch),
        "ours": partial(ours.encode, model, data, batch, seed=settings.seed),
    }
