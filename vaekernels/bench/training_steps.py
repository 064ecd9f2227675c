"""A training step in plain PyTorch and by ours: gradients checked, calls to time.

A step is forward, backward and Adam, fused on every side, from the same weights on the same images.
Each side draws its own noise.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaekernels.bench import accuracy, eager_vae
from vaekernels.bench.timing import Call
from vaekernels.bench.workloads import LAYOUTS, Layout
from vaekernels.models import VAE
from vaekernels.ops import randn

Loss = Callable[..., Tensor]
_SEED = 3
_NO_AUTOCAST = contextlib.nullcontext()


@dataclass(frozen=True)
class Side:
    """A model with its own weights, its loss, and images in the layout of the weights."""

    model: nn.Module
    loss: Loss
    images: Tensor


@dataclass(frozen=True)
class TrainingStep:
    """A model of ours and its training.

    Attributes:
        model: ours, in training mode, float32.
        eager: model -> the same weights, copied, in plain PyTorch.
        our_loss: model, images, seed -> loss; seed None: drawn.
        eager_loss: eager model, images, noise -> loss; noise None: drawn.
        images: a batch.
        latents: shape of the noise of an image.
        lr: learning rate of Adam.
        autocast: dtype of autocast, or None.
    """

    model: Any
    eager: Callable[[Any], nn.Module]
    our_loss: Loss
    eager_loss: Loss
    images: Tensor
    latents: tuple[int, ...]
    lr: float
    autocast: torch.dtype | None = None

    def ours(self) -> Side:
        """A copy of the model."""
        return Side(copy.deepcopy(self.model), self.our_loss, self.images)

    def plain(self, layout: Layout = "nchw", *, compiled: bool = False) -> Side:
        """A copy in plain PyTorch, its loss by ``torch.compile`` if ``compiled``."""
        model = self.eager(self.model).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
        loss = torch.compile(self.eager_loss) if compiled else self.eager_loss
        return Side(model, loss, self.images.to(memory_format=LAYOUTS[layout]))

    def sides(self) -> dict[str, Side]:
        """``eager_nchw``, ``eager_channels_last`` and ``ours``."""
        plain = {f"eager_{layout}": self.plain(layout) for layout in LAYOUTS}
        return {**plain, "ours": self.ours()}

    def call(self, side: Side, *, graph: bool = False) -> Call:
        """The step of a side as a call without arguments; ``graph``: for a CUDA graph."""
        return step(
            side.model,
            lambda: side.loss(side.model, side.images),
            self.lr,
            # The casts of the weights are part of a graph only without their cache.
            autocast=self._autocast(cache_enabled=not graph),
            capturable=graph,
        )

    def check(self, images: Tensor | None = None, allowed: float | None = None) -> accuracy.Verdict:
        """All gradients from the same noise, by their L2 distance from float64.

        Args:
            images: None: the batch.
            allowed: the distance; None: by eager's.
        """
        ours, eager, exact = self.losses(self.images if images is None else images)
        return accuracy.compare_models(
            _gradients(*ours), _gradients(*eager), _gradients(*exact), allowed
        )

    def losses(self, images: Tensor) -> tuple[tuple[nn.Module, Tensor], ...]:
        """Model and loss of ours, of eager and of eager in float64, from the same noise."""
        shape = (len(images), *self.latents)
        eps = randn(shape, seed=_SEED, device=images.device, dtype=torch.float32)
        eager = self.eager(self.model)
        double = copy.deepcopy(eager).double()
        with self._autocast():
            our_loss = self.our_loss(self.model, images, _SEED)
            eager_loss = self.eager_loss(eager, images, eps)
        exact = self.eager_loss(double, images.double(), eps.double())
        return (self.model, our_loss), (eager, eager_loss), (double, exact)

    def _autocast(self, *, cache_enabled: bool = True) -> torch.autocast:
        return torch.autocast(
            self.images.device.type,
            self.autocast or torch.bfloat16,
            enabled=self.autocast is not None,
            cache_enabled=cache_enabled,
        )


def of_vae(model: VAE, images: Tensor, lr: float, **fields: Any) -> TrainingStep:
    """The step of a VAE; ``fields`` are further ones of :class:`TrainingStep`."""
    return TrainingStep(
        model=model,
        eager=eager_vae.from_model,
        our_loss=lambda model, images, seed=None: model(images, seed=seed).loss,
        eager_loss=eager_vae.loss,
        images=images,
        latents=(model.config.latent_dim,),
        lr=lr,
        **fields,
    )


def step(
    model: nn.Module,
    loss: Callable[[], Tensor],
    lr: float,
    *,
    autocast: contextlib.AbstractContextManager[Any] = _NO_AUTOCAST,
    capturable: bool = False,
) -> Call:
    """Forward, backward and Adam, as a call without arguments.

    Args:
        model: whose parameters are updated.
        loss: of the model.
        lr: learning rate.
        autocast: context of the forward.
        capturable: the optimizer's state can be captured by a CUDA graph.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True, capturable=capturable)

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            value = loss()
        value.backward()
        optimizer.step()

    return call


def _gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    parameters = [parameter for _, parameter in sorted(model.named_parameters())]
    return list(torch.autograd.grad(loss, parameters))
