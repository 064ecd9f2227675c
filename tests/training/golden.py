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
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    scaler = torch.amp.GradScaler("cpu", enabled=options.amp == "fp16")
    steps_of_warmup = options.kl_warmup * math.ceil(len(training) / options.batch)
    step, history = 0, []
    for epoch in range(1, options.epochs + 1):
        order = torch.Generator().manual_seed(
            (options.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63  # docs: a function of both
        )
        sums = torch.zeros(3, dtype=torch.float64)
        for index in torch.randperm(len(training), generator=order).split(options.batch):
            ids = training[index]
            beta = options.beta
            if step < steps_of_warmup:
                beta *= step / steps_of_warmup
            with torch.autocast("cpu", AMP[options.amp]) if options.amp in AMP else nullcontext():
                nll, kl = model.terms(images[ids], step, ids)
            if options.free_bits:
                cost = kl.mean(0).clamp(min=options.free_bits).sum()
            else:
                cost = kl.sum(1).mean()
            loss = nll.mean() + beta * cost
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            if options.grad_clip:
                grads = [p.grad for p in model.parameters()]
                norm = torch.stack([grad.norm() for grad in grads]).norm()
                for grad in grads:
                    grad.mul_(min(1.0, options.grad_clip / (norm + 1e-6)))
            scaler.step(optimizer)
            scaler.update()
            sums += len(ids) * torch.stack((loss, nll.mean(), kl.sum(1).mean())).detach().double()
            step += 1
        record = dict(zip(("loss", "nll", "kl"), (sums / len(training)).tolist(), strict=True))
        with torch.no_grad():
            nll, kl = model.terms(images[heldout], 2**32 - 1, heldout)
        record |= {"heldout_nll": nll.mean().item(), "heldout_kl": kl.sum(1).mean().item()}
        history.append(record | {"step": step, "beta": beta})
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    return Golden(initial, weights, history)
