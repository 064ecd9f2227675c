"""The objective on held-out images."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

import torch
from torch import Tensor

from vaekernels.data.dataset import Batch, Dataset, load_batches
from vaekernels.objectives import Objective, ObjectiveConfig
from vaekernels.training.distributed import World
from vaekernels.training.metrics import Losses, mean_of
from vaekernels.training.schedule import EVALUATION_STEP


@torch.no_grad()
def evaluate(
    model: Any,
    data: Dataset,
    *,
    batch: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    world: World | None = None,
    objective: Objective | None = None,
) -> Losses:
    """Losses per image of ``data``, one noise sample each.

    The noise depends on ``seed`` and the images' ids alone, so that two models, or two epochs
    of one, are compared under the same.

    Args:
        model: its device is ``device``.
        batch: images at once, over all processes.
        seed: of the noise.
        device: where.
        world: the processes that share the work; None: this one does it all.
        objective: whose terms are measured; None: the model's own with default settings, such
            as beta 1 and no free bits.

    Returns:
        The mean of each term, their sum ``loss``, and what the objective derives from them.
    """
    world, device = world or World(), torch.device(device)
    objective = objective or model.objective(ObjectiveConfig(), seed, 1)
    was_training = model.training
    model.eval()
    names: tuple[str, ...] = ()
    total = torch.zeros((), dtype=torch.float64, device=device)
    parts = torch.arange(len(data)).split(batch)
    for index, mine in zip(parts, load_shares(data, parts, world, device), strict=True):
        count = len(world.share(index))
        out = objective(model, mine, EVALUATION_STEP)
        names = tuple(out.terms)
        sums = torch.stack([_sum(term, count) for term in out.terms.values()])
        total = total + torch.stack((sums.sum(), *sums, sums.new_tensor(count)))
    model.train(was_training)
    return mean_of(names, world.sum(total).cpu(), objective)


def _sum(term: Tensor, count: int) -> Tensor:
    """The sum over ``count`` images of a term of each, or of a mean."""
    if count == 0 or term.ndim == 0:
        return term.double().mean() * count
    return term.double().sum()


def load_shares(
    data: Dataset, parts: Iterable[Tensor], world: World, device: torch.device
) -> Generator[Batch, None, None]:
    """This process's images of each part; of a part without any for it, the first image.

    Every process must join the sums over the processes: without a share, with weight zero.
    """
    shares = (world.share(part) if len(part) > world.rank else part[:1] for part in parts)
    yield from load_batches(data, shares, device)
