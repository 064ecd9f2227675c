"""The same work in eager PyTorch and with our ops, timed in turn."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vaekernels import registry
from vaekernels.bench.models import training_step
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
    """What is measured; layers, and latent ops and losses, are parts of the training step.

    ``conv_backend`` is which backend ran the convolutions on our side.
    """

    step: Timing
    layers: Timing
    latent: Timing
    encoding: Timing
    conv_backend: str

    @property
    def rows(self) -> tuple[Timing, ...]:
        """In the order of the report."""
        return self.step, self.layers, self.latent, self.encoding

    @property
    def layers_share(self) -> float:
        """The part of the eager training step that the layers take."""
        return self.layers.eager / self.step.eager

    @property
    def latent_share(self) -> float:
        """The part of the eager training step that the latent ops and losses take."""
        return self.latent.eager / self.step.eager


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
        ("layers", len(images), _layers(model, images)),
        ("latent ops and losses", len(images), _latent_ops(model, images, ids, settings)),
        ("encoding run", len(everything), _encodings(model, everything, settings)),
    )
    timings = []
    with tqdm(work, unit=" measurement", disable=None if progress else True) as bar:
        for name, count, calls in bar:
            bar.set_description(f"measuring: {name}")
            medians = interleaved(calls, seconds=settings.seconds)
            timings.append(Timing(name, count, medians["eager"], medians["ours"]))
    step, layers, latent, encoding = timings
    conv_backend = registry.select("downsample_conv4x4", images.device.type, images.dtype)
    return Comparison(step, layers, latent, encoding, conv_backend)


def _steps(model: VAE, images: Tensor, ids: Tensor, settings: Settings) -> Calls:
    """Forward, backward and optimizer, each side on a copy of the weights."""
    numbers = itertools.count()

    theirs, mine = eager.twin(model), copy.deepcopy(model)

    def my_loss() -> Tensor:
        return ours.loss(mine, images, seed=settings.seed, step=next(numbers), sample_ids=ids)

    return {
        "eager": training_step(theirs, lambda: eager.loss(theirs, images), settings.lr),
        "ours": training_step(mine, my_loss, settings.lr),
    }


def _layers(model: VAE, images: Tensor) -> Calls:
    """Encoder and decoder, forward and backward, at the step's shapes."""
    z = torch.randn(len(images), model.config.latent_dim, device=images.device)
    grads = (torch.randn(len(images), 2 * model.config.latent_dim, device=images.device), images)

    def both_ways(encoder: nn.Module, decoder: nn.Module) -> Callable[[], object]:
        leaf = z.clone().requires_grad_()
        leaves = [*encoder.parameters(), *decoder.parameters(), leaf]
        return lambda: torch.autograd.grad((encoder(images), decoder(leaf)), leaves, grads)

    theirs = eager.twin(model)
    return {
        "eager": both_ways(theirs.encoder, theirs.decoder),
        "ours": both_ways(model.encoder, model.decoder),
    }


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
        "eager": partial(eager.encode, eager.twin(model), data, batch),
        "ours": partial(ours.encode, model, data, batch, seed=settings.seed),
    }
