"""The demo with tiny settings: its files, its figures, and its parity checks."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from vaekernels.bench import eager_vae
from vaekernels.bench.eager_vae import EagerVAE
from vaekernels.cli import app
from vaekernels.demo import ParityError, Settings, run
from vaekernels.demo.measure import Timing, eager_shares
from vaekernels.demo.parity import (
    TOLERANCE,
    Loss,
    check_encoding,
    check_evaluation,
    check_training,
)
from vaekernels.demo.report import PICTURES, duration
from vaekernels.models import VAE
from vaekernels.runtime.cpu_info import cpu_name
from vaekernels.training import ImageData, RunFolder, split

pytest.importorskip("matplotlib", reason="the demo needs matplotlib: extra [demo]")
_labelled = pytest.importorskip("vaekernels.demo.figures")._labelled


CPU = torch.device("cpu")
TINY = Settings(
    epochs=2,
    seed=3,
    device="cpu",
    hidden=(4, 8),
    latent_dim=4,
    batch=16,
    encode_batch=32,
    parity_steps=5,
    seconds=0.01,
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    """80 images of 16 x 16 in 4 classes: a bright square in one of the corners."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 60, (80, 1, 16, 16), generator=generator).to(torch.uint8)
    labels = torch.arange(80) % 4
    for image, label in zip(pixels, labels.tolist(), strict=True):
        top, left = 8 * (label // 2) + 1, 8 * (label % 2) + 1
        image[:, top : top + 6, left : left + 6] = 255
    return ImageData(pixels, labels, "squares", torch.arange(80))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Lines that the demo printed."""
    return []


@pytest.fixture(scope="module")
def out(tmp_path_factory, data, said) -> Path:
    """The folder of a demo."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    report = run(data, folder, TINY, say=said.append, progress=False)
    assert report == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def summary(out) -> dict:
    return json.loads((out / "comparison.json").read_text())


def test_every_promised_file_and_no_other(out, data):
    names = {picture.name for picture in PICTURES}
    assert {
        "training_curve.png",
        "reconstructions.png",
        "samples.png",
        "traversals.png",
        "latent_map.png",
    } == names
    assert {file.name for file in out.iterdir()} == {
        *names,
        "run",
        "comparison.json",
        "report.html",
    }
    assert VAE.from_pretrained(out / "run").config == TINY.model_config(data)
    assert len(RunFolder(out / "run").metrics()) == TINY.epochs


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_pictures_open_and_show_something(out, picture):
    with Image.open(out / picture.name) as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) >= 300
        assert max(image.size) <= 2000
        assert len(set(image.convert("L").get_flattened_data())) > 20


def test_report_is_one_file_with_every_picture_and_ratio(out, summary):
    def share(part):
        return f"{100 * summary[f'{part}_share_of_eager_step']:.1f}"

    page = (out / "report.html").read_text()
    text = " ".join(page.split()).lower()
    for picture in PICTURES:
        assert picture.name in page
        embedded = base64.b64encode((out / picture.name).read_bytes()).decode()
        assert f"data:image/png;base64,{embedded}" in page
    for row in summary["timings"]:
        assert f"{row['ratio']:.2f}&times;" in page
    assert f"{summary['training']['heldout_elbo']:.2f}" in page
    assert f"{summary['parity']['loss_difference']:.1e}" in page
    assert f"of the eager training step the layers take {share('layers')}%" in text
    assert f"the latent ops and losses {share('latent')}%" in text
    backend = summary["conv_backend"]
    expected = "no kernels of ours" if backend == "reference" else f"ran on the {backend} kernels"
    assert expected in text
    assert cpu_name() in page
    assert torch.__version__ in page
    assert not re.search(r"<script|<link|https?://|src=\"(?!data:)", page)


def test_comparison_is_complete(summary):
    assert [row["name"] for row in summary["timings"]] == [
        "training step",
        "layers",
        "latent ops and losses",
        "encoding run",
    ]
    for row in summary["timings"]:
        assert row["eager_seconds"] > 0
        assert row["ratio"] == row["eager_seconds"] / row["ours_seconds"]
    assert [row["images"] for row in summary["timings"]] == [16, 16, 16, 80]
    parity = summary["parity"]
    assert 0 <= parity["loss_difference"] <= TOLERANCE == parity["tolerance"]
    assert 0 <= parity["latent_difference"] <= TOLERANCE
    assert parity["steps"] == TINY.parity_steps
    assert summary["machine"]["threads"] == torch.get_num_threads()
    assert summary["training"]["train_images"] == 64
    assert summary["training"]["heldout_images"] == 16


def test_terminal_tells_elbo_and_ratios(said, out, summary):
    text = "\n".join(said)
    assert f"ELBO of 16 held-out digits: {summary['training']['heldout_elbo']:.2f} nats" in text
    for row in summary["timings"]:
        assert f"{row['ratio']:.2f}x" in text


def test_again_replaces_its_own_outputs_alone(tmp_path, out, data):
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "notes.txt").write_text("mine")
    run(data, again, replace(TINY, seed=4), say=lambda line: None, progress=False)
    assert (again / "notes.txt").read_text() == "mine"
    assert {file.name for file in again.iterdir()} == {
        "notes.txt",
        *(file.name for file in out.iterdir()),
    }
    assert RunFolder(again / "run").settings()["train"]["seed"] == 4
    for name in ("report.html", "samples.png"):
        assert (again / name).read_bytes() != (out / name).read_bytes()


def test_leaves_a_foreign_run_folder_alone(tmp_path, data):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not the folder of a run"):
        run(data, tmp_path, TINY, say=lambda line: None, progress=False)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def _value_off(model: EagerVAE, images: Tensor, eps: Tensor | None) -> Tensor:
    return 1.001 * eager_vae.loss(model, images, eps)


def _noise_of_its_own(model: EagerVAE, images: Tensor, eps: Tensor | None) -> Tensor:
    return eager_vae.loss(model, images, None)


def _gradient_cut(model: EagerVAE, images: Tensor, eps: Tensor | None) -> Tensor:
    """The value is right and a gradient is missing: the losses differ from the next step on."""
    z, kl = eager_vae.reparameterise(model.encoder(images), eps)
    nll = eager_vae.reconstruction_loss(model.decoder(z), images)
    return (nll.detach() + kl) / len(images)


@pytest.mark.parametrize(
    ("broken", "at"), [(_value_off, "0"), (_noise_of_its_own, r"\d"), (_gradient_cut, "[1-4]")]
)
def test_parity_fails_for_a_broken_twin(data, broken: Loss, at: str):
    assert check_training(data, TINY, CPU) <= TOLERANCE
    with pytest.raises(ParityError, match=f"loss at step {at}: ours gives .* eager PyTorch"):
        check_training(data, TINY, CPU, broken)


def test_parity_fails_for_a_loss_that_is_not_finite(data):
    with pytest.raises(ParityError, match="nan"):
        check_training(data, TINY, CPU, lambda *given: eager_vae.loss(*given) * torch.nan)


def test_a_broken_twin_ends_the_demo_before_anything_is_written(tmp_path, data):
    with pytest.raises(ParityError):
        run(data, tmp_path, TINY, say=print, progress=False, eager_loss=_value_off)
    assert not list(tmp_path.iterdir())


def test_encoding_parity(data):
    torch.manual_seed(0)
    model = VAE(TINY.model_config(data))
    assert check_encoding(model, data, TINY) <= TOLERANCE
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    # The noise belongs to the image, not to its place.
    assert check_encoding(model, data.take(index), TINY) <= TOLERANCE


def test_shares_are_parts_of_one_step(data, summary, said, out) -> None:
    shares = [summary[f"{part}_share_of_eager_step"] for part in ("layers", "latent", "optimizer")]
    assert all(share > 0 for share in shares)
    assert sum(shares) == pytest.approx(1.0)
    page, text = (out / "report.html").read_text(), "\n".join(said)
    percents = [float(number) for number in re.findall(r"([\d.]+)%", text)]
    assert sum(percents) == pytest.approx(100, abs=0.2)
    assert all(f"{percent}%" in page for percent in percents)
    assert Timing("c", 8, 5.0, 2.5).ratio == 2.0


def test_the_step_whose_parts_are_timed_is_the_eager_step(data, monkeypatch) -> None:
    """Cut into parts, it makes the gradients of the whole."""
    torch.manual_seed(0)
    model = VAE(TINY.model_config(data))
    images = data.batch(torch.arange(16), CPU)
    made = []

    def step(self, *_) -> None:
        made.append([p.grad.clone() for group in self.param_groups for p in group["params"]])

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    torch.manual_seed(5)
    eager_shares(model, images, TINY)
    torch.manual_seed(5)
    twin = eager_vae.from_model(model)
    eager_vae.loss(twin, images, None).backward()
    for got, parameter in zip(made[0], twin.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_evaluation_parity(data, out, summary) -> None:
    folder = RunFolder(out / "run")
    model = VAE.from_pretrained(out / "run")
    heldout = split(data, TINY.heldout)[1]
    logged = folder.metrics()[-1]["heldout_elbo"]
    assert check_evaluation(model, heldout, TINY, logged) <= TOLERANCE
    assert summary["parity"]["elbo_difference"] <= TOLERANCE
    with torch.no_grad():
        model.decoder.convs[0].weight[0] += 0.1
    with pytest.raises(ParityError, match="held-out ELBO: ours gives .* eager PyTorch"):
        check_evaluation(model, heldout, TINY, logged)


def test_the_best_epoch_is_marked(out, said, summary) -> None:
    history = RunFolder(out / "run").metrics()
    best = max(record["heldout_elbo"] for record in history)
    training = summary["training"]
    assert training["best_heldout_elbo"] == best
    assert history[training["best_epoch"] - 1]["heldout_elbo"] == best
    text = f"{best:.2f} after epoch {training['best_epoch']}"
    assert text in "\n".join(said)
    assert text in " ".join((out / "report.html").read_text().split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (0.9996, "1000 ms"),
        (0.0421, "42.1 ms"),
        (35.6e-6, "35.6 µs"),
        (1e-7, "0.10 µs"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_sit_beside_their_rows(channels):
    figure = _labelled(
        torch.rand(5, channels, 8, 8), 2, title="t", rows=("a", "b"), columns_at=("x", "y")
    )
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y"]
    bottom = axes.get_ylim()[0]
    assert [round(at / (bottom + 0.5), 2) for at in axes.get_yticks()] == [0.17, 0.5, 0.83]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"seed": -1}, "seed must be in"),
        ({"device": "quantum"}, "device must be auto, cpu"),
    ],
)
def test_bad_settings_are_named(tmp_path, data, change, message):
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path, replace(TINY, **change), say=print, progress=False)
    assert not list(tmp_path.iterdir())


def test_command_hands_its_options_on(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("vaekernels.demo.run", lambda *given, **_: called.append(given))
    monkeypatch.setattr("vaekernels.training.load_images", lambda source: source)
    options = ["--out", str(tmp_path), "--epochs", "7", "--seed", "3", "--device", "cpu"]
    assert CliRunner().invoke(app, ["demo", *options]).exit_code == 0
    assert called == [("mnist5k", tmp_path, Settings(epochs=7, seed=3, device="cpu"))]


def test_command_knows_its_options():
    result = CliRunner().invoke(app, ["demo", "--epochs", "0"])
    assert result.exit_code == 2
    assert "epochs must be at least 1; got 0" in result.output
    text = CliRunner().invoke(app, ["demo", "--help"], terminal_width=100).output
    for option in ("--out", "--epochs", "--seed", "--device"):
        assert option in text
