"""The same work in eager PyTorch and with our ops, timed in turns."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vaekernels.backends import registry
from vaekernels.bench import eager_vae, training_steps
from vaekernels.bench.timing import Call, median_seconds, synchronize
from vaekernels.demo.settings import Settings
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.models import VAE
from vaekernels.ops import bernoulli_nll
from vaekernels.training import ImageData

Calls = dict[str, Call]


@dataclass(frozen=True)
class Timing:
    """Median seconds of one piece of work on both sides."""

    name: str
    images: int
    eager: float
    ours: float

    @property
    def ratio(self) -> float:
        """Eager's time over ours."""
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
    """Parts of the time of one eager training step; they add up to 1."""

    layers: float
    latent: float
    optimizer: float


@dataclass(frozen=True)
class Comparison:
    """The measured times.

    Attributes:
        rows: training step; its layers; its latent ops and losses; encoding run. The parts are
            timed alone, with inputs in the caches, and do not add up to the step.
        shares: of the parts, measured within whole eager steps.
        conv_backend: the backend of the convolutions on our side.
    """

    rows: tuple[Timing, Timing, Timing, Timing]
    shares: Shares
    conv_backend: str


def compare(
    model: VAE, data: ImageData, everything: ImageData, settings: Settings, *, progress: bool
) -> Comparison:
    """Time both sides on ``model``, which is not changed.

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
            timings.append(Timing(name, count, **median_seconds(calls, seconds=settings.seconds)))
    step, layers, latent, encoding = timings
    conv_backend = registry.select("downsample_conv4x4", images.device.type, images.dtype)
    shares = eager_shares(model, images, settings)
    return Comparison((step, layers, latent, encoding), shares, conv_backend)


def eager_shares(model: VAE, images: Tensor, settings: Settings) -> Shares:
    """The shares of layers, of latent ops and losses, and of the optimizer in an eager step.

    The step is cut where the parts meet: the backward of each part takes the gradient of the next
    one. The clock is read at the cuts, so that the parts add up to the step.
    """
    eager = eager_vae.from_model(model)
    optimizer = torch.optim.Adam(eager.parameters(), lr=settings.lr, fused=True)
    one = torch.ones((), device=images.device)
    rounds: list[Shares] = []
    deadline = time.perf_counter() + settings.seconds / 10

    def now() -> float:
        synchronize()
        return time.perf_counter()

    # The first step creates the state of the optimizer.
    while len(rounds) < 8 or time.perf_counter() < deadline:
        at = [now()]
        optimizer.zero_grad(set_to_none=True)
        moments = eager.encoder(images)
        at.append(now())
        moments_leaf = moments.detach().requires_grad_()
        z, kl = eager_vae.reparameterise(moments_leaf)
        at.append(now())
        z_leaf = z.detach().requires_grad_()
        logits = eager.decoder(z_leaf)
        at.append(now())
        logits_leaf = logits.detach().requires_grad_()
        nll = eager_vae.reconstruction_loss(logits_leaf, images) / len(images)
        nll.backward()
        at.append(now())
        logits.backward(logits_leaf.grad)
        at.append(now())
        torch.autograd.backward([kl / len(images), z], [one, z_leaf.grad])
        at.append(now())
        moments.backward(moments_leaf.grad)
        at.append(now())
        optimizer.step()
        at.append(now())
        encode, sample, decode, loss, decode_back, sample_back, encode_back, update = (
            (end - start) / (at[-1] - at[0]) for start, end in itertools.pairwise(at)
        )
        layers = encode + decode + decode_back + encode_back
        rounds.append(Shares(layers, sample + loss + sample_back, update))
    # The step whose layers are the median: medians of each part would not add up to 1.
    return sorted(rounds[1:], key=lambda each: each.layers)[len(rounds[1:]) // 2]


@torch.no_grad()
def encode(model: VAE, data: ImageData, settings: Settings) -> Tensor:
    """A sampled latent of every image by ours: (N, L), on the CPU."""
    return torch.cat(
        [
            model.encode(images).latent_dist.sample(seed=settings.seed, sample_ids=ids).cpu()
            for images, ids in data.batches(settings.encode_batch, model.device)
        ]
    )


@torch.no_grad()
def encode_eager(
    model: eager_vae.EagerVAE, data: ImageData, settings: Settings, eps: Tensor | None = None
) -> Tensor:
    """A sampled latent of every image in plain PyTorch: (N, L), on the CPU.

    Args:
        model: in plain PyTorch.
        data: the images.
        settings: batch size.
        eps: noise (N, L); None: torch's.
    """
    device, batch = next(model.parameters()).device, settings.encode_batch
    latents: list[Tensor] = []
    for number, (images, _) in enumerate(data.batches(batch, device)):
        mean, logvar = model.encoder(images).chunk(2, dim=1)
        std = torch.exp(0.5 * logvar)
        first = number * batch
        noise = torch.randn_like(std) if eps is None else eps[first : first + len(images)]
        latents.append((mean + noise * std).cpu())
    return torch.cat(latents)


def _steps(model: VAE, images: Tensor, ids: Tensor, settings: Settings) -> Calls:
    """Forward, backward and optimizer, each side on a copy of the weights."""
    numbers = itertools.count()
    eager, ours = eager_vae.from_model(model), copy.deepcopy(model)

    def our_loss() -> Tensor:
        return ours(images, seed=settings.seed, step=next(numbers), sample_ids=ids).loss

    return {
        "eager": training_steps.step(eager, lambda: eager_vae.loss(eager, images), settings.lr),
        "ours": training_steps.step(ours, our_loss, settings.lr),
    }


def _layers(model: VAE, images: Tensor) -> Calls:
    """Encoder and decoder, forward and backward, at the shapes of the step."""
    z = torch.randn(len(images), model.config.latent_dim, device=images.device)
    grads = (torch.randn(len(images), 2 * model.config.latent_dim, device=images.device), images)

    def forward_backward(encoder: nn.Module, decoder: nn.Module) -> Call:
        leaf = z.clone().requires_grad_()
        leaves = [*encoder.parameters(), *decoder.parameters(), leaf]
        return lambda: torch.autograd.grad((encoder(images), decoder(leaf)), leaves, grads)

    eager = eager_vae.from_model(model)
    return {
        "eager": forward_backward(eager.encoder, eager.decoder),
        "ours": forward_backward(model.encoder, model.decoder),
    }


def _latent_ops(model: VAE, images: Tensor, ids: Tensor, settings: Settings) -> Calls:
    """Reparameterisation, KL and likelihood, forward and backward, at the shapes of the step."""
    with torch.no_grad():
        moments = model.encoder(images)
        logits = model.decoder(moments.chunk(2, dim=1)[0])
    leaves = [moments.requires_grad_(), logits.requires_grad_()]
    # As the backward of the decoder's first layer would return it.
    grad_z = torch.randn_like(moments.detach().chunk(2, dim=1)[0])
    one = torch.ones((), device=images.device)
    numbers = itertools.count()

    def eager() -> tuple[Tensor, Tensor]:
        z, kl = eager_vae.reparameterise(moments)
        return (eager_vae.reconstruction_loss(logits, images) + kl) / len(images), z

    def ours() -> tuple[Tensor, Tensor]:
        z, kl = DiagonalGaussian(moments).rsample_kl(
            seed=settings.seed, step=next(numbers), sample_ids=ids
        )
        return (bernoulli_nll(logits, images) + kl).mean(), z

    def forward_backward(function: Callable[[], tuple[Tensor, Tensor]]) -> Call:
        return lambda: torch.autograd.grad(function(), leaves, [one, grad_z])

    return {"eager": forward_backward(eager), "ours": forward_backward(ours)}


def _encodings(model: VAE, data: ImageData, settings: Settings) -> Calls:
    eager = eager_vae.from_model(model)
    return {
        "eager": lambda: encode_eager(eager, data, settings),
        "ours": lambda: encode(model, data, settings),
    }
