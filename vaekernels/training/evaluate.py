"""The ELBO of held-out images."""

from __future__ import annotations

import torch

from vaekernels.data.dataset import Dataset, load_batches
from vaekernels.models import VAE
from vaekernels.training.distributed import World
from vaekernels.training.metrics import Losses, mean_of
from vaekernels.training.schedule import EVALUATION_STEP


@torch.no_grad()
def evaluate(
    model: VAE,
    data: Dataset,
    *,
    batch: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    world: World | None = None,
) -> Losses:
    """Losses per image of ``data``, one noise sample each, at beta 1 and without free bits.

    The noise depends on ``seed`` and the images' ids alone, so that two models, or two epochs
    of one, are compared under the same.

    Args:
        model: its device is ``device``.
        batch: images at once, over all processes.
        world: the processes that share the work; None: this one does it all.
    """
    world, device = world or World(), torch.device(device)
    was_training = model.training
    model.eval()
    total = torch.zeros(4, dtype=torch.float64, device=device)
    parts = [world.share(index) for index in torch.arange(len(data)).split(batch)]
    for mine in load_batches(data, filter(len, parts), device):
        out = model(mine.x, seed=seed, step=EVALUATION_STEP, sample_ids=mine.ids)
        nll, kl = out.nll.double().sum(), out.kl.double().sum()
        total += torch.stack((nll + kl, nll, kl, nll.new_tensor(len(mine.ids))))
    model.train(was_training)
    return mean_of(world.sum(total).cpu())
