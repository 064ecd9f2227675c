"""The pictures of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from vaekernels.models import VAE
from vaekernels.training import ImageData
from vaekernels.training.diagnostics import kl_per_dim, moments, reconstructions, traversal
from vaekernels.utils import plots
from vaekernels.utils.image_grid import grid, stack_rows

_COLUMNS = 10
_SAMPLES = 60
_DIMS = 10
_VALUES = 11
_EXTENT = 3.0
_INCHES_PER_IMAGE = 0.78


def training_curve(history: Sequence[dict[str, float]], path: Path) -> None:
    """ELBO and KL over the epochs."""
    plots.save_figure(plots.training_curve(history), path)


def reconstruction_grid(model: VAE, heldout: ImageData, path: Path) -> None:
    """Held-out digits, each over its reconstruction."""
    originals, decoded = reconstructions(model, heldout, 2 * _COLUMNS)
    figure = _labelled(
        stack_rows(originals, decoded, _COLUMNS),
        min(_COLUMNS, len(originals)),
        title="Held-out digits and their reconstructions",
        rows=("original", "ours"),
    )
    plots.save_figure(figure, path)


def sample_grid(model: VAE, seed: int, path: Path) -> None:
    """Samples from the prior."""
    images = model.sample(_SAMPLES, seed=seed)
    title = f"{_SAMPLES} samples, decoded from draws of the prior"
    plots.save_figure(_labelled(images, _COLUMNS, title=title), path)


def traversal_grid(model: VAE, heldout: ImageData, path: Path) -> None:
    """One latent dim at a time, in the order of their KL."""
    kl = kl_per_dim(model, heldout)
    dims = kl.argsort(descending=True).tolist()[:_DIMS]
    start = heldout.images[len(heldout) // 2 : len(heldout) // 2 + 1]
    images = traversal(model, dims, _VALUES, _EXTENT, start)
    steps = np.linspace(-_EXTENT, _EXTENT, _VALUES)
    figure = _labelled(
        images,
        _VALUES,
        title="One latent dim at a time, all others as they are for one held-out digit",
        rows=[f"dim {dim}: {kl[dim]:.1f} nats" for dim in dims],
        columns_at=[f"{step:.1f}" for step in steps],
        xlabel="value of the dim, in standard deviations of the prior",
        ylabel="latent dim and its mean KL",
    )
    plots.save_figure(figure, path)


def latent_map(model: VAE, heldout: ImageData, seed: int, path: Path) -> None:
    """Posterior means of held-out digits in two dims."""
    mean, _ = moments(model, heldout)
    figure = plots.latent_map(mean, heldout.labels, seed)
    axes = figure.axes[0]
    axes.set(xlabel="first coordinate of the map", ylabel="second coordinate of the map")
    legend = axes.get_legend()
    if legend is not None:
        legend.set_title("digit")
    plots.save_figure(figure, path)


def _labelled(
    images: Tensor,
    columns: int,
    *,
    title: str,
    rows: Sequence[str] = (),
    columns_at: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """:func:`grid` with a title, and names for its rows (repeated downwards) and columns."""
    lines = -(-len(images) // columns)
    picture = np.asarray(grid(images, columns))
    height, width = picture.shape[:2]
    figure = Figure(
        figsize=(columns * _INCHES_PER_IMAGE + 1.6, lines * _INCHES_PER_IMAGE + 1.0),
        layout="constrained",
    )
    axes = figure.subplots()
    # The colour map applies to grey images, which have no third dim.
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    names = [rows[line % len(rows)] for line in range(lines)] if rows else []
    axes.set_yticks(_middles(len(names), lines, height), names)
    axes.set_xticks(_middles(len(columns_at), columns, width), columns_at)
    axes.tick_params(length=0)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _middles(count: int, cells: int, pixels: int) -> list[float]:
    """The centres of the first ``count`` of ``cells`` equal parts of ``pixels``."""
    return [(cell + 0.5) * pixels / cells for cell in range(count)]
