"""Training steps on both sides: bfloat16 autocast, float32 weights, fused Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaekernels as vk
from benchmarks.gpu import autoencoder, checks, clock
from benchmarks.gpu.phase import Context, Row, brief
from vaekernels.bench import eager_kl, eager_vae
from vaekernels.bench.memory import peak_bytes
from vaekernels.models import VAE, AutoencoderKL, VAEConfig

_SEED = 3
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Training:
    """A model, and what its step is.

    Attributes:
        model: ours, in training mode, float32.
        twin: ours -> the same weights in plain PyTorch.
        our_loss: ours, images, seed -> a number; seed None: drawn.
        eager_loss: the twin, images, noise -> a number; noise None: drawn.
        images: of a step.
        checked: of the check, in float64.
        latents: shape of their noise.
        lr: of Adam.
        graphed: whether both sides are measured as CUDA graphs too.
    """

    model: Any
    twin: Callable[[Any], nn.Module]
    our_loss: Loss
    eager_loss: Loss
    images: Tensor
    checked: Tensor
    latents: tuple[int, ...]
    lr: float
    graphed: bool = False

    def measure(self, seconds: float, *, compiled: bool = False) -> Row:
        """Check the gradients, then time steps.

        Args:
            seconds: of measuring.
            compiled: against torch.compile in channels_last; else against eager in both layouts.

        Returns:
            A row: ``error``, ``eager_error``, ``excess``, ``ok`` of all gradients' relative L2
            distance from float64; ``ms`` and ``spread``; ``peak_bytes`` of a step beyond weights
            and optimizer; ``graph_failed`` where a capture failed.
        """
        verdict = self.check()
        row: Row = {"batch": len(self.images), **verdict.row()}
        twin = self.twin(self.model)
        last = copy.deepcopy(twin).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images_last = self.images.to(memory_format=torch.channels_last)
        ours = copy.deepcopy(self.model)
        sides: dict[str, tuple[nn.Module, Loss, Tensor]]
        if compiled:
            sides = {"compile": (last, torch.compile(self.eager_loss), images_last)}
        else:
            sides = {
                "eager_nchw": (twin, self.eager_loss, self.images),
                "eager_channels_last": (last, self.eager_loss, images_last),
            }
        if verdict.ok:
            sides["ours"] = (ours, self.our_loss, self.images)
        steps = {name: self.step(*side) for name, side in sides.items()}
        contenders = {name: clock.plain(step) for name, step in steps.items()}
        row["peak_bytes"] = {name: peak_bytes(step) for name, step in steps.items()}
        if self.graphed and not compiled:
            for name, (model, loss, images) in sides.items():
                title = "ours_graph" if name == "ours" else name.replace("eager", "graphed")
                try:
                    contenders[title] = self._graphed(copy.deepcopy(model), loss, images)
                except RuntimeError as failure:
                    row.setdefault("graph_failed", {})[title] = brief(failure)
        return {**row, **clock.medians(clock.timings(contenders, seconds=seconds))}

    def step(
        self, model: nn.Module, loss: Loss, images: Tensor, *, graph: bool = False
    ) -> Callable[[], None]:
        """Forward, backward and Adam, as a call without arguments."""
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr, fused=True, capturable=graph)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast(cache_enabled=not graph):
                value = loss(model, images)
            value.backward()
            optimizer.step()

        return step

    def check(self) -> checks.Verdict:
        """The gradients from the same noise, against float64."""
        eps = vk.randn(self.latents, seed=_SEED, device=self.images.device, dtype=torch.float32)
        twin, images = self.twin(self.model), self.checked
        wide = copy.deepcopy(twin).double()
        exact = _gradients(wide, self.eager_loss(wide, images.double(), eps.double()))
        with self._autocast():
            eager_loss = self.eager_loss(twin, images, eps)
            our_loss = self.our_loss(self.model, images, _SEED)
        return checks.judged_by_distance(
            _gradients(self.model, our_loss), _gradients(twin, eager_loss), exact
        )

    def _graphed(self, model: nn.Module, loss: Loss, images: Tensor) -> clock.Contender:
        return clock.replayed(
            lambda given: self.step(model, loss, given, graph=True), [images], "cuda"
        )

    def _autocast(self, *, cache_enabled: bool = True) -> torch.autocast:
        # A graph's casts of the weights must be made again at each replay.
        return torch.autocast(self.images.device.type, torch.bfloat16, cache_enabled=cache_enabled)


def convolutional(context: Context) -> Training:
    """A DCGAN-like VAE of 64 pixels."""
    torch.manual_seed(0)
    config = VAEConfig(image_shape=(3, 64, 64), latent_dim=64, hidden=(32, 64, 128, 256))
    batch = 64
    if context.tiny:
        config = VAEConfig(image_shape=(1, 8, 8), latent_dim=4, hidden=(8, 8))
        batch = 2
    model = VAE(config).to(context.device)
    model.check_range = False  # a GPU would wait for it
    images = torch.rand(batch, *config.image_shape, device=context.device)
    return Training(
        model=model,
        twin=eager_vae.twin,
        our_loss=lambda model, images, seed=None: model(images, seed=seed).loss,
        eager_loss=eager_vae.loss,
        images=images,
        checked=images,
        latents=(batch, config.latent_dim),
        lr=1e-3,
        graphed=context.device == "cuda",
    )


def autoencoder_kl(context: Context) -> Training:
    """The autoencoder of Stable Diffusion, 8 images of 256 pixels; checked on one of 128."""
    model = autoencoder.model(context, torch.float32).train().requires_grad_()
    size, batch = (16, 2) if context.tiny else (256, 8)
    images = torch.rand(batch, 3, size, size, device=context.device) * 2 - 1
    checked = images[:1, :, : size // 2, : size // 2].contiguous()
    small = checked.shape[-1] // model.downscaling
    return Training(
        model=model,
        twin=eager_kl.twin,
        our_loss=_our_kl_loss,
        eager_loss=eager_kl.loss,
        images=images,
        checked=checked,
        latents=(1, model.latent_channels, small, small),
        lr=1e-4,
    )


def _our_kl_loss(model: AutoencoderKL, images: Tensor, seed: int | None = None) -> Tensor:
    """``eager_kl.loss`` by ours."""
    z, kl = model.encode(images).latent_dist.rsample_kl(seed=seed)
    return F.mse_loss(model.decode(z).sample, images) + 1e-6 * kl.sum() / len(images)


def _gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    named = sorted(model.named_parameters())
    return list(torch.autograd.grad(loss, [parameter for _, parameter in named]))
