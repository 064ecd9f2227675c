"""What a trained model does: reconstructions, traversals, posteriors.

A model is any :class:`~vaekernels.models.registry.ImageAutoencoder`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vaekernels.data.dataset import Dataset, as_float, load_batches
from vaekernels.distributions.diagonal_gaussian import DiagonalGaussian
from vaekernels.objectives.elbo import kl_of_dims

# Enough images for a mean KL to one or two digits.
_KL_IMAGES = 2000


@torch.no_grad()
def moments(
    model: Any, data: Dataset, *, batch: int = 256, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the posterior of every image of ``data``: (N, L), on the CPU.

    Raises:
        ValueError: the model has no posterior.
    """
    means, logvars = [], []
    with tqdm(
        total=len(data), unit=" images", unit_scale=True, disable=None if progress else True
    ) as bar:
        for part in load_batches(data, torch.arange(len(data)).split(batch), model.device):
            encoded = model.encode(part.x)
            if not hasattr(encoded, "latent_dist"):
                raise ValueError(
                    f"{type(model).__name__} has no posterior: expected an encode that returns "
                    f"latent_dist; got {type(encoded).__name__}"
                )
            means.append(encoded.latent_dist.mean.cpu())
            logvars.append(encoded.latent_dist.logvar.cpu())
            bar.update(len(part.ids))
    return torch.cat(means), torch.cat(logvars)


@torch.no_grad()
def reconstructions(model: Any, data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """``count`` images spread evenly over ``data``, and what their latents decode to."""
    index = torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()
    images = data.get(index).to(model.device).x
    return images, model.decode(_latents(model, images)).sample


@torch.no_grad()
def kl_per_dim(model: Any, data: Dataset) -> Tensor:
    """(L,): the mean KL of each latent dim, in nats; a dim near 0 is not used."""
    index = torch.linspace(0, len(data) - 1, min(_KL_IMAGES, len(data))).round().long()
    posterior = DiagonalGaussian.from_mean_logvar(*moments(model, data.take(index)))
    return kl_of_dims(posterior).mean(0)


@torch.no_grad()
def traversal(
    model: Any, dims: list[int], values: int, extent: float, image: Tensor | None = None
) -> Tensor:
    """Images in which one latent dim at a time goes from ``-extent`` to ``extent``.

    Args:
        model: its config has ``latent_dim``.
        dims: the latent dims, in the order of the result.
        values: how many values of each.
        extent: in standard deviations of the prior.
        image: (1, C, H, W): the other dims are those of its latents; None: they are 0.

    Returns:
        (len(dims) * values, C, H, W).
    """
    z = torch.zeros(1, model.config.latent_dim, device=model.device)
    if image is not None:
        z = _latents(model, as_float(image, model.device))
    z = z.repeat(len(dims), values, 1)
    steps = torch.linspace(-extent, extent, values, device=z.device)
    for row, dim in enumerate(dims):
        z[row, :, dim] = steps
    return model.decode(z.flatten(0, 1)).sample


def _latents(model: Any, images: Tensor) -> Tensor:
    """The mean of the posterior, or the latents where there is none."""
    encoded = model.encode(images)
    return encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
