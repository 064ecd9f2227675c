"""Plots of a run, with matplotlib (extra ``[plot]``)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaekernels.utils.atomic_file import atomic_write
from vaekernels.utils.extras import needs_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# t-SNE takes seconds for this many points, and minutes for ten times as many.
_MAP_POINTS = 1000


def training_curve(history: Sequence[dict[str, float]]) -> Figure:
    """Plot ELBO and KL of training and held-out images over the epochs.

    The epoch with the best held-out ELBO is marked by a ring and named in the legend.

    Args:
        history: the records of ``metrics.jsonl``, one per epoch.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: ``history`` is empty.
    """
    if not history:
        raise ValueError("training_curve: the history is empty; expected at least one epoch")
    figure = _figure(width=9.0, height=3.6)
    elbo, kl = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    best = best_epoch(history)
    for axes, name, title in ((elbo, "elbo", "ELBO"), (kl, "kl", "KL from the prior")):
        axes.plot(epochs, [record[name] for record in history], marker=".", label="training")
        axes.plot(
            epochs, [record[f"heldout_{name}"] for record in history], marker=".", label="held out"
        )
        axes.plot(
            [best["epoch"]],
            [best[f"heldout_{name}"]],
            linestyle="none",
            marker="o",
            markersize=11,
            fillstyle="none",
            color="black",
            label=f"best held-out ELBO: {best['heldout_elbo']:.2f}, epoch {best['epoch']}",
        )
        axes.set(title=title, xlabel="epoch", ylabel="nats per image")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def best_epoch(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The first record with the largest held-out ELBO."""
    return max(history, key=lambda record: record["heldout_elbo"])


def latent_map(latents: Tensor, labels: Tensor | None = None, seed: int = 0) -> Figure:
    """Plot latents as points in the plane, coloured by label.

    Two latent dims are plotted directly. More are embedded by t-SNE if scikit-learn is installed,
    and otherwise projected to their two principal components; the title names the method. From
    more than 1,000 points a random subset of 1,000 is plotted.

    Args:
        latents: (N, ...), one row per image; further dims are flattened.
        labels: (N,) integers, or None.
        seed: seed of the subset and of the embedding.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: fewer than two latent dims or three points, or ``labels`` has another shape.
    """
    latents = latents.detach().float().cpu().flatten(1)
    if len(latents) < 3 or latents.shape[1] < 2:
        raise ValueError(
            f"latent_map: latents must be at least 3 points of 2 dims; got {tuple(latents.shape)}"
        )
    if labels is not None and labels.shape != latents.shape[:1]:
        raise ValueError(
            f"latent_map: labels must have shape ({len(latents)},); got {tuple(labels.shape)}"
        )
    figure = _figure(width=7.0, height=6.0)
    if len(latents) > _MAP_POINTS:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(latents), generator=generator, device="cpu")[:_MAP_POINTS]
        latents = latents[chosen]
        labels = None if labels is None else labels[chosen]
    points, how = _to_plane(latents, seed)
    axes = figure.subplots()
    axes.set(title=f"Posterior means of {len(points)} images, {how}")
    axes.set_aspect("equal", adjustable="datalim")
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=6)
        return figure
    from matplotlib import colormaps

    classes = labels.unique().tolist()
    colours = colormaps["tab10" if len(classes) <= 10 else "turbo"]
    for index, label in enumerate(classes):
        selected = points[labels == label]
        colour = colours(index if len(classes) <= 10 else index / (len(classes) - 1))
        axes.scatter(selected[:, 0], selected[:, 1], s=6, color=colour, label=str(label))
    if len(classes) <= 20:
        axes.legend(markerscale=3, title="label", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` to ``path`` as PNG, atomically."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _to_plane(latents: Tensor, seed: int) -> tuple[Tensor, str]:
    if latents.shape[1] == 2:
        return latents, "the two latent dims"
    if importlib.util.find_spec("sklearn") is not None:
        manifold = importlib.import_module("sklearn.manifold")
        # The perplexity must be smaller than the number of points.
        perplexity = min(30.0, (len(latents) - 1) / 3)
        embedding = manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed)
        embedded = torch.from_numpy(embedding.fit_transform(latents.numpy()))
        return embedded, f"t-SNE of {latents.shape[1]} latent dims"
    centred = latents - latents.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return (
        centred @ directions[:2].T,
        f"two principal components of {latents.shape[1]} latent dims",
    )


def _figure(width: float, height: float) -> Figure:
    with needs_extra("plot", "a plot"):
        # Without pyplot: no global state, no window system.
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")
