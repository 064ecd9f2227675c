"""What there is to see of a trained model: reconstructions, traversals, posteriors."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from vaekernels.data.dataset import Dataset, as_float, load_batches
from vaekernels.models import VAE

# Enough images for a mean KL to one or two digits.
_KL_IMAGES = 2000


@torch.no_grad()
def moments(
    model: VAE, data: Dataset, *, batch: int = 256, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the posterior of every image of ``data``: (N, L), on the CPU."""
    means, logvars = [], []
    with tqdm(
        total=len(data), unit=" images", unit_scale=True, disable=None if progress else True
    ) as bar:
        for part in load_batches(data, torch.arange(len(data)).split(batch), model.device):
            posterior = model.encode(part.x).latent_dist
            means.append(posterior.mean.cpu())
            logvars.append(posterior.logvar.cpu())
            bar.update(len(part.ids))
    return torch.cat(means), torch.cat(logvars)


@torch.no_grad()
def reconstructions(model: VAE, data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """``count`` images spread evenly over ``data``, and what the posterior means decode to."""
    index = torch.linspace(0, len(data) - 1, min(count, len(data))).round().long()
    images = data.get(index).to(model.device).x
    return images, model.decode(model.encode(images).latent_dist.mode()).sample


@torch.no_grad()
def kl_per_dim(model: VAE, data: Dataset) -> Tensor:
    """(L,): the mean KL of each latent dim, in nats; a dim near 0 is not used."""
    index = torch.linspace(0, len(data) - 1, min(_KL_IMAGES, len(data))).round().long()
    mean, logvar = moments(model, data.take(index))
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean(0)


@torch.no_grad()
def traversal(
    model: VAE, dims: list[int], values: int, extent: float, image: Tensor | None = None
) -> Tensor:
    """Images in which one latent dim at a time goes from ``-extent`` to ``extent``.

    Args:
        model: the VAE.
        dims: the latent dims, in the order of the result.
        values: how many values of each.
        extent: in standard deviations of the prior.
        image: (1, C, H, W): the other dims are its posterior mean's; None: they are 0.

    Returns:
        (len(dims) * values, C, H, W).
    """
    z = torch.zeros(1, model.config.latent_dim, device=model.device)
    if image is not None:
        z = model.encode(as_float(image, model.device)).latent_dist.mode()
    z = z.repeat(len(dims), values, 1)
    steps = torch.linspace(-extent, extent, values, device=z.device)
    for row, dim in enumerate(dims):
        z[row, :, dim] = steps
    return model.decode(z.flatten(0, 1)).sample
