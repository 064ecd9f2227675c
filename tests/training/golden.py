"""``vaekernels train`` written by hand in plain PyTorch; only the noise bits are ``vk.randn``'s."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk

ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "leaky_relu": F.leaky_relu, "tanh": torch.tanh}
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Options:
    """The options of ``vaekernels train`` with their defaults, but for a small model."""

    backbone: str = "conv"
    hidden: tuple[int, ...] = (4, 6)
    latent_dim: int = 3
    likelihood: str = "bernoulli"
    scale: float | str = 1.0
    activation: str = "relu"
    epochs: int = 3
    batch: int = 8
    lr: float = 1e-3
    beta: float = 1.0
    kl_warmup: float = 0.0
    free_bits: float = 0.0
    grad_clip: float = 0.0
    amp: str = "off"
    heldout: float = 0.1
    seed: int = 0
    optimizer: str = "adam"
    schedule: str = "constant"
    lr_warmup: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    objective: str = "elbo"
    importance_samples: int = 5


class PlainVAE(nn.Module):
    """PyTorch's own layers, under the names of ``vk.models.VAE``."""

    def __init__(self, options: Options, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.options, self.shape = options, shape
        self.encoder, self.decoder = nn.Module(), nn.Module()
        channels, latents = [shape[0], *options.hidden], options.latent_dim
        if options.backbone == "conv":
            levels = len(options.hidden)
            self.inner = (channels[-1], shape[1] // 2**levels, shape[2] // 2**levels)
            self.encoder.convs = nn.ModuleList(
                nn.Conv2d(channels[i], channels[i + 1], 4, stride=2, padding=1)
                for i in range(levels)
            )
            self.encoder.moments = nn.Linear(math.prod(self.inner), 2 * latents)
            self.decoder.input = nn.Linear(latents, math.prod(self.inner))
            self.decoder.convs = nn.ModuleList(
                nn.ConvTranspose2d(channels[i + 1], channels[i], 4, stride=2, padding=1)
                for i in reversed(range(levels))
            )
        else:
            widths = [math.prod(shape), *options.hidden]
            self.encoder.layers = nn.ModuleList(
                nn.Linear(widths[i], widths[i + 1]) for i in range(len(options.hidden))
            )
            self.encoder.moments = nn.Linear(widths[-1], 2 * latents)
            widths = [latents, *reversed(options.hidden)]
            self.decoder.layers = nn.ModuleList(
                nn.Linear(widths[i], widths[i + 1]) for i in range(len(options.hidden))
            )
            self.decoder.output = nn.Linear(widths[-1], math.prod(shape))
        self.likelihood = nn.Module()
        if options.scale == "learned":
            self.likelihood.log_scale = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.options.activation]
        if self.options.backbone == "conv":
            for conv in self.encoder.convs:
                x = activation(conv(x))
        x = x.flatten(1)
        if self.options.backbone == "mlp":
            for layer in self.encoder.layers:
                x = activation(layer(x))
        return self.encoder.moments(x)

    def decode(self, z: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.options.activation]
        if self.options.backbone == "mlp":
            for layer in self.decoder.layers:
                z = activation(layer(z))
            return self.decoder.output(z).unflatten(1, self.shape)
        z = activation(self.decoder.input(z)).unflatten(1, self.inner)
        for conv in self.decoder.convs[:-1]:
            z = activation(conv(z))
        return self.decoder.convs[-1](z)

    def nll(self, raw: Tensor, x: Tensor) -> Tensor:
        raw = raw.float()
        if self.options.likelihood == "bernoulli":
            each = F.binary_cross_entropy_with_logits(raw, x, reduction="none")
            return each.flatten(1).sum(1)
        scale = self.options.scale
        scale = self.likelihood.log_scale.exp() if scale == "learned" else torch.tensor(scale)
        if self.options.likelihood == "gaussian":
            each = 0.5 * ((x - raw) / scale) ** 2 + scale.log() + 0.5 * math.log(2 * math.pi)
        else:
            each = (x - raw).abs() / scale + (2 * scale).log()
        return each.flatten(1).sum(1)

    def terms(self, x: Tensor, step: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """NLL (B,) and KL of each latent dim (B, L), from one sample of the posterior."""
        moments = self.encode(x)
        mean, logvar = moments.float().chunk(2, dim=1)
        seed = self.options.seed
        eps = vk.randn(mean.shape, seed=seed, step=step, sample_ids=ids, dtype=torch.float32)
        z = mean + (0.5 * logvar).exp() * eps
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
        return self.nll(self.decode(z.to(moments.dtype)), x), kl

    def importance_weighted(self, x: Tensor, step: int, ids: Tensor) -> Tensor:
        """(B,): log 1/K sum_k p(x, z_k) / q(z_k | x), by torch.distributions."""
        mean, logvar = self.encode(x).chunk(2, dim=1)
        samples, seed = self.options.importance_samples, self.options.seed
        posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
        prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        weights = []
        for k in range(step * samples, (step + 1) * samples):
            eps = vk.randn(mean.shape, seed=seed, step=k, sample_ids=ids, dtype=torch.float32)
            z = mean + (0.5 * logvar).exp() * eps
            ratio = (prior.log_prob(z) - posterior.log_prob(z)).sum(1)
            weights.append(ratio - self.nll(self.decode(z), x))
        return torch.stack(weights).logsumexp(0) - math.log(samples)

    def loss(self, x: Tensor, step: int, ids: Tensor, beta: float) -> tuple[Tensor, list[Tensor]]:
        """The loss, and the means of the terms."""
        options = self.options
        with torch.autocast("cpu", AMP[options.amp]) if options.amp in AMP else nullcontext():
            if options.objective == "iwae":
                bound = self.importance_weighted(x, step, ids).mean()
                return -bound, [bound]
            nll, kl = self.terms(x, step, ids)
        cost = kl.sum(1).mean()
        if options.free_bits:
            cost = kl.mean(0).clamp(min=options.free_bits).sum()
        return nll.mean() + beta * cost, [nll.mean(), kl.sum(1).mean()]


def make_optimizer(options: Options, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """As a PyTorch user writes it."""
    common = {"lr": options.lr, "weight_decay": options.weight_decay}
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, **common)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common)
    if options.optimizer == "nadam":
        return torch.optim.NAdam(parameters, **common)
    if options.optimizer == "radam":
        return torch.optim.RAdam(parameters, **common)
    if options.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, **common)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, **common, momentum=options.momentum)
    assert options.optimizer == "sgd"
    return torch.optim.SGD(parameters, **common, momentum=options.momentum)


def make_schedule(
    options: Options, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Of the learning rate, ``steps`` in an epoch."""
    warmup = round(options.lr_warmup * steps)
    rest = options.epochs * steps - warmup
    if options.schedule == "cosine":
        after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rest)
    else:
        end = 0.0 if options.schedule == "linear" else 1.0
        after = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, end, rest)
    if not warmup:
        return after
    before = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [before, after], [warmup])


@dataclass
class Golden:
    """What a run must end in: the weights at first and at last, and a record for each epoch."""

    initial: dict[str, Tensor]
    weights: dict[str, Tensor]
    history: list[dict[str, float]]


def train(images: Tensor, options: Options) -> Golden:
    """Train on ``images``, (N, C, H, W) of bytes."""
    images = images.float() / 255
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    count = round(options.heldout * len(images))
    heldout, training = shuffled[:count].sort().values, shuffled[count:].sort().values

    torch.manual_seed(options.seed)
    model = PlainVAE(options, tuple(images.shape[1:]))
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(options, list(model.parameters()))
    schedule = make_schedule(options, optimizer, math.ceil(len(training) / options.batch))
    average: dict[str, Tensor] = {}
    scaler = torch.amp.GradScaler("cpu", enabled=options.amp == "fp16")
    steps_of_warmup = options.kl_warmup * math.ceil(len(training) / options.batch)
    step, history = 0, []
    for epoch in range(1, options.epochs + 1):
        order = torch.Generator().manual_seed(
            (options.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63  # docs: a function of both
        )
        names = ["iwae"] if options.objective == "iwae" else ["nll", "kl"]
        sums = torch.zeros(1 + len(names), dtype=torch.float64)
        for index in torch.randperm(len(training), generator=order).split(options.batch):
            beta = options.beta
            if step < steps_of_warmup:
                beta *= step / steps_of_warmup
            optimizer.zero_grad()
            for ids in training[index].chunk(options.accumulate):
                loss, terms = model.loss(images[ids], step, ids, beta)
                scaler.scale(loss * len(ids) / len(index)).backward()
                sums += len(ids) * torch.stack((loss, *terms)).detach().double()
            scaler.unscale_(optimizer)
            if options.grad_clip:
                grads = [p.grad for p in model.parameters()]
                norm = torch.stack([grad.norm() for grad in grads]).norm()
                for grad in grads:
                    grad.mul_(min(1.0, options.grad_clip / (norm + 1e-6)))
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            for name, value in model.state_dict().items():
                before = average.get(name, value)
                average[name] = options.ema * before + (1 - options.ema) * value
            step += 1
        record = dict(zip(("loss", *names), (sums / len(training)).tolist(), strict=True))
        evaluated = PlainVAE(options, tuple(images.shape[1:]))
        evaluated.load_state_dict(average if options.ema else model.state_dict())
        with torch.no_grad():
            nll, kl = evaluated.terms(images[heldout], 2**32 - 1, heldout)
        record |= {"heldout_nll": nll.mean().item(), "heldout_kl": kl.sum(1).mean().item()}
        record |= {"step": step} if options.objective == "iwae" else {"step": step, "beta": beta}
        history.append(record)
    model = evaluated
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    return Golden(initial, weights, history)
