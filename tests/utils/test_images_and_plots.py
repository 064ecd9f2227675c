"""Grids and plots."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image

from vaekernels.models import VAE
from vaekernels.training.diagnostics import kl_per_dim, moments, reconstructions, traversal
from vaekernels.utils import plots
from vaekernels.utils.image_grid import grid, save_png, stack_rows, to_bytes

HISTORY = [
    {"epoch": e, "elbo": -9.0 / e, "kl": 1.0, "heldout_elbo": -8.0 / e, "heldout_kl": 1.0}
    for e in (1, 2, 3)
]


def test_grid_arranges_and_enlarges():
    images = torch.tensor([0.0, 0.5, 2.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    picture = grid(images, columns=2)
    assert picture.mode == "L"
    assert picture.size == (2 * 66 + 2, 2 * 66 + 2)
    assert [picture.getpixel(at) for at in ((10, 10), (76, 10), (10, 76), (76, 76))] == [
        0,
        128,
        255,
        255,
    ]
    assert grid(torch.zeros(1, 3, 100, 70), columns=8).size == (74, 104)


def test_grid_errors():
    with pytest.raises(ValueError, match=r"images must have shape .* got \(2, 8, 8\)"):
        grid(torch.zeros(2, 8, 8), 2)
    with pytest.raises(ValueError, match=r"got \(0, 1, 8, 8\)"):
        grid(torch.zeros(0, 1, 8, 8), 2)
    with pytest.raises(ValueError, match="columns must be at least 1; got 0"):
        grid(torch.zeros(2, 1, 8, 8), 0)


def test_stack_rows():
    above = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1)
    rows = stack_rows(above, above + 10, columns=3).flatten().tolist()
    assert rows == [0, 1, 2, 10, 11, 12, 3, 4, 255, 13, 14, 255]


def test_save_png(tmp_path):
    save_png(grid(torch.rand(4, 3, 8, 8), 2), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (134, 134)
    assert to_bytes(torch.tensor([-1.0, 1.0, 7.0])).tolist() == [0, 255, 255]


def test_views(images, model_config):
    model = VAE(model_config).eval()
    mean, logvar = moments(model, images, batch=7)
    assert mean.shape == logvar.shape == (40, 3)
    assert kl_per_dim(model, images).shape == (3,)
    originals, decoded = reconstructions(model, images, 5)
    assert originals.shape == decoded.shape == (5, 1, 8, 8)
    rows = traversal(model, [2, 0], 3, 2.0, images.images[:1]).unflatten(0, (2, 3))
    z = mean[:1].clone()
    z[0, 2] = 2.0
    torch.testing.assert_close(rows[0, 2:], model.decode(z).sample.detach())


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


@pytest.mark.usefixtures("matplotlib")
def test_training_curve(tmp_path):
    plots.save_figure(plots.training_curve(HISTORY), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size[0] > 500
    history = [*HISTORY, {**HISTORY[-1], "epoch": 4, "heldout_elbo": -7.0}]
    for axes, name in zip(plots.training_curve(history).axes, ("elbo", "kl"), strict=True):
        ring = axes.lines[-1]
        assert ring.get_xydata().tolist() == [[3, HISTORY[-1][f"heldout_{name}"]]]
        assert ring.get_label() == f"best held-out ELBO: {-8 / 3:.2f}, epoch 3"
    with pytest.raises(ValueError, match="the history is empty"):
        plots.training_curve([])


@pytest.mark.usefixtures("matplotlib")
def test_latent_map_names_its_method(tmp_path, monkeypatch):
    latents, labels = torch.randn(60, 5), torch.arange(60) % 3
    titles = [plots.latent_map(latents[:, :2], labels).axes[0].get_title()]
    if plots.importlib.util.find_spec("sklearn"):
        titles.append(plots.latent_map(latents, labels).axes[0].get_title())
        assert "t-SNE of 5 latent dims" in titles[-1]
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    figure = plots.latent_map(latents)
    assert "two latent dims" in titles[0]
    assert "two principal components of 5 latent dims" in figure.axes[0].get_title()
    plots.save_figure(figure, tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"labels must have shape \(60,\); got \(3,\)"):
        plots.latent_map(latents, labels[:3])
    with pytest.raises(ValueError, match="at least 3 points of 2 dims"):
        plots.latent_map(latents[:, :1])


def test_plots_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vaekernels\[plot\]'"):
        plots.training_curve(HISTORY)
