"""The same work in eager PyTorch and with our ops, timed in turn."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vaekernels.backends import registry
from vaekernels.bench.models import training_step
from vaekernels.bench.timing import interleaved, synchronize
from vaekernels.demo import eager, ours
from vaekernels.demo.settings import Settings
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
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
class Shares:
    """The parts of one eager training step, from one clock: they add up to 1."""

    layers: float
    latent: float
    optimizer: float


@dataclass(frozen=True)
class Comparison:
    """What is measured; layers, and latent ops and losses, are parts of the training step.

    ``shares`` are measured within whole steps: the rows of the parts are timed alone, with inputs
    in the caches, and do not add up to the row of the step. ``conv_backend`` is which backend ran
    the convolutions on our side.
    """

    step: Timing
    layers: Timing
    latent: Timing
    encoding: Timing
    shares: Shares
    conv_backend: str

    @property
    def rows(self) -> tuple[Timing, ...]:
        """In the order of the report."""
        return self.step, self.layers, self.latent, self.encoding


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
    shares = eager_shares(model, images, settings)
    conv_backend = registry.select("downsample_conv4x4", images.device.type, images.dtype)
    return Comparison(step, layers, latent, encoding, shares, conv_backend)


def eager_shares(model: VAE, images: Tensor, settings: Settings) -> Shares:
    """What the layers, the latent ops and losses, and the optimizer are of an eager step.

    The step of :func:`eager.loss`, cut where the parts meet: each part's backward gets the gradient
    of the one behind it. The clock is read at the cuts, so the parts are the whole step.
    """
    theirs = eager.twin(model)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=settings.lr, fused=True)
    one = torch.ones((), device=images.device)
    rounds: list[Shares] = []
    deadline = time.perf_counter() + settings.seconds / 10
    # The first step makes the state of the optimizer.
    while len(rounds) < 8 or time.perf_counter() < deadline:
        at = [_now()]
        optimizer.zero_grad(set_to_none=True)
        moments = theirs.encoder(images)
        at.append(_now())
        moments_leaf = moments.detach().requires_grad_()
        z, kl = eager.reparameterise(moments_leaf)
        at.append(_now())
        z_leaf = z.detach().requires_grad_()
        logits = theirs.decoder(z_leaf)
        at.append(_now())
        logits_leaf = logits.detach().requires_grad_()
        nll = eager.reconstruction_loss(logits_leaf, images) / len(images)
        nll.backward()
        at.append(_now())
        logits.backward(logits_leaf.grad)
        at.append(_now())
        torch.autograd.backward([kl / len(images), z], [one, z_leaf.grad])
        at.append(_now())
        moments.backward(moments_leaf.grad)
        at.append(_now())
        optimizer.step()
        at.append(_now())
        encode, sample, decode, loss, decode_back, sample_back, encode_back, update = (
            (end - start) / (at[-1] - at[0]) for start, end in itertools.pairwise(at)
        )
        layers = encode + decode + decode_back + encode_back
        rounds.append(Shares(layers, sample + loss + sample_back, update))
    # The step whose layers are the median: medians of each part would not add up to 1.
    return sorted(rounds[1:], key=lambda each: each.layers)[len(rounds[1:]) // 2]


def _now() -> float:
    synchronize()
    return time.perf_counter()


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
