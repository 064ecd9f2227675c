"""Every command writes what it says, and the files open."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from vaekernels.cli import app
from vaekernels.models import VAE
from vaekernels.training import RunFolder, TrainConfig, load_images, split
from vaekernels.training.diagnostics import traversal
from vaekernels.utils.image_grid import grid, save_png

CELL = 64 + 2  # images of 8 x 8 are drawn eight times as large, with a line between


def png_size(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def test_help_names_every_command():
    words = [sys.executable, "-m", "vaekernels.cli", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    for name in ("train", "sample", "reconstruct", "traverse", "encode", "--traceback"):
        assert name in result.stdout


def test_every_option_has_help():
    for command in app.registered_commands:
        for name, parameter in inspect.signature(
            command.callback, eval_str=True
        ).parameters.items():
            if name != "ctx":
                assert parameter.annotation.__metadata__[0].help, (command.callback, name)
        assert command.callback.__doc__


def test_defaults_of_train_are_those_of_the_library():
    command = next(c for c in app.registered_commands if c.callback.__name__ == "train")
    parameters = inspect.signature(command.callback).parameters
    for field in dataclasses.fields(TrainConfig):
        assert parameters[field.name].default == field.default, field.name


def test_train(run):
    settings = RunFolder(run).settings()
    assert settings["model"]["image_shape"] == [1, 8, 8]
    assert settings["model"]["hidden"] == [4]
    assert settings["train"]["epochs"] == 2
    assert VAE.from_pretrained(run).config.latent_dim == 3


def test_resume_takes_the_stored_settings(invoke, data, tmp_path):
    path = tmp_path / "run"
    options = "--backbone mlp --hidden 6 --latent-dim 2 --batch 16 --likelihood laplace"
    first = invoke("train", data, "--out", path, *options.split(), "--epochs", 1, "--lr", 0.01)
    assert first.exit_code == 0, first.output
    result = invoke("train", data, "--out", path, "--resume", "--epochs", 2)
    assert result.exit_code == 0, result.output
    assert len(RunFolder(path).metrics()) == 2
    assert RunFolder(path).settings()["train"]["lr"] == 0.01
    result = invoke("train", data, "--out", path, "--resume", "--latent-dim", 5)
    assert result.exit_code == 2
    assert "was started with latent_dim 2; --resume cannot go on with 5" in result.stderr


def test_train_on_a_folder_with_image_size(invoke, tmp_path):
    generator = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, width in enumerate((9, 12, 15, 20)):
        pixels = generator.integers(0, 255, (10, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    run = tmp_path / "run"
    options = "--image-size 8x12 --hidden 4 --epochs 1 --batch 2 --heldout 0.25"
    result = invoke("train", folder, "--out", run, *options.split())
    assert result.exit_code == 0, result.output
    out = tmp_path / "latents.safetensors"
    assert invoke("encode", run, folder, "--out", out).exit_code == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["files"]) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    result = invoke("train", folder, "--out", run, "--resume", "--epochs", 2)
    assert result.exit_code == 0, result.output


def test_sample(invoke, run, tmp_path):
    out = tmp_path / "new" / "samples.png"
    words = ("sample", run, "--out", out, "-n", 7, "--columns", 4)
    assert invoke(*words).exit_code == 0
    assert png_size(out) == (4 * CELL + 2, 2 * CELL + 2)
    first = out.read_bytes()
    assert invoke(*words).exit_code == 0
    assert out.read_bytes() == first
    assert invoke(*words, "--seed", 1).exit_code == 0
    assert out.read_bytes() != first


def test_reconstruct(invoke, run, data, tmp_path):
    out = tmp_path / "pairs.png"
    words = ("reconstruct", run, data, "--out", out, "--part", "all")
    result = invoke(*words, "-n", 7, "--columns", 5)
    assert result.exit_code == 0, result.output
    assert png_size(out) == (5 * CELL + 2, 4 * CELL + 2)
    with Image.open(out) as image:
        pixels = np.asarray(image)
    images = np.load(data)["x_train"]
    assert pixels[2, 2] == images[0, 0, 0]
    assert pixels[2 * CELL + 2, 2] == images[41, 0, 0]  # the sixth of 7 among 50
    assert pixels[-10, -10] == 255  # filled up with white


def test_reconstruct_shows_no_more_than_there_is(invoke, run, data, tmp_path):
    out = tmp_path / "pairs.png"
    result = invoke("reconstruct", run, data, "--out", out)
    assert result.exit_code == 0, result.output
    assert "5 images over their reconstructions" in result.output  # a tenth is held out
    assert png_size(out) == (5 * CELL + 2, 2 * CELL + 2)


def test_traverse(invoke, run, data, tmp_path):
    out = tmp_path / "dims.png"
    result = invoke("traverse", run, "--out", out, "--values", 5)
    assert result.exit_code == 0, result.output
    assert png_size(out) == (5 * CELL + 2, 3 * CELL + 2)
    assert "rows are the latent dims 0, 1, 2" in result.output
    result = invoke("traverse", run, data, "--out", out, "--dims", 2, "--image", 4)
    assert result.exit_code == 0, result.output
    assert png_size(out) == (9 * CELL + 2, 2 * CELL + 2)
    numbers = [float(text.split(")")[0]) for text in result.output.split("(")[1:]]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"--extent": 0.5}, {"extent": 0.5}),
        ({"--extent": 2.0}, {"extent": 2.0}),
        ({"--values": 4}, {"values": 4}),
        ({"--dims": 2}, {"dims": [0, 1]}),
    ],
)
def test_traverse_shows_what_its_options_say(invoke, run, tmp_path, options, expected):
    out, right = tmp_path / "dims.png", tmp_path / "right.png"
    words = [word for option in options.items() for word in option]
    assert invoke("traverse", run, "--out", out, *words).exit_code == 0
    arguments = {"dims": [0, 1, 2], "values": 9, "extent": 3.0, **expected}
    images = traversal(VAE.from_pretrained(run), **arguments)
    save_png(grid(images, arguments["values"]), right)
    assert out.read_bytes() == right.read_bytes()


def test_traverse_starts_from_the_image(invoke, run, data, tmp_path):
    pictures = set()
    for image in (0, 4):
        out = tmp_path / f"{image}.png"
        assert invoke("traverse", run, data, "--out", out, "--image", image).exit_code == 0
        pictures.add(out.read_bytes())
    assert len(pictures) == 2


@pytest.mark.parametrize("part", ["train", "heldout", "all"])
def test_reconstruct_shows_the_part(invoke, run, data, tmp_path, part):
    out = tmp_path / "pairs.png"
    result = invoke("reconstruct", run, data, "--out", out, "--part", part, "-n", 1)
    assert result.exit_code == 0, result.output
    train, heldout = split(load_images(data), 0.1)
    first = {"train": train, "heldout": heldout, "all": load_images(data)}[part].images[0, 0]
    with Image.open(out) as image:
        pixels = np.asarray(image)[2 : 2 + 64 : 8, 2 : 2 + 64 : 8]
    assert np.array_equal(pixels, first.numpy())


def test_encode(invoke, run, data, tmp_path):
    out = tmp_path / "latents.safetensors"
    result = invoke("encode", run, data, "--out", out, "--batch", 8)
    assert result.exit_code == 0, result.output
    with safe_open(out, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert tensors["ids"].tolist() == list(range(50))
    assert tensors["labels"].tolist() == [i % 5 for i in range(50)]
    images = torch.from_numpy(np.load(data)["x_train"])[:, None] / 255
    posterior = VAE.from_pretrained(run).encode(images).latent_dist
    torch.testing.assert_close(tensors["mean"], posterior.mean.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tensors["logvar"], posterior.logvar.detach(), rtol=1e-5, atol=1e-6)
    assert metadata["seed"] == "2"
    assert metadata["scaling_applied"] == "false"
    assert {"vaekernels", "torch", "data_sha256", "model_sha256"} <= metadata.keys()


@pytest.mark.parametrize(("part", "count"), [("train", 45), ("heldout", 5)])
def test_encode_a_part(invoke, run, data, tmp_path, part, count):
    out = tmp_path / "latents.safetensors"
    result = invoke("encode", run, data, "--out", out, "--part", part)
    assert result.exit_code == 0, result.output
    with safe_open(out, "pt") as file:
        assert file.get_tensor("mean").shape == (count, 3)


@pytest.mark.parametrize(
    ("options", "wanted", "again", "out"),
    (
        ("", (("sd1", 512, 1, "bfloat16"), False, "cuda"), False, "user.json"),
        (
            "--model flux --size 64 --batch 3 --dtype tf32 --gradients --again --out DIR/mine.json",
            (("flux", 64, 3, "tf32"), True, "cuda"),
            True,
            "mine.json",
        ),
    ),
)
def test_tune_options(invoke, monkeypatch, tmp_path, options, wanted, again, out):
    pytest.importorskip("triton")
    from vaekernels.backends.triton.conv import autotune_table as table
    from vaekernels.runtime import conv_autotune

    measured = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(conv_autotune, "model_shapes", lambda *asked: asked)
    monkeypatch.setattr(conv_autotune, "jobs", lambda *asked: asked)
    monkeypatch.setattr(table, "user_path", lambda: tmp_path / "user.json")
    monkeypatch.setattr(
        conv_autotune,
        "tune",
        lambda jobs, path, measure, again, progress: measured.append((jobs, path, again)) or {},
    )
    result = invoke("tune", *options.replace("DIR", str(tmp_path)).split())
    assert result.exit_code == 0, result.output
    assert measured == [(wanted, tmp_path / out, again)]
    assert str(tmp_path / out) in result.output.replace("\n", "")


def test_info_lists_every_op_and_backend(invoke, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    described = json.loads(invoke("info", "--json").output)
    printed = invoke("info").output
    for title in ("machine", "build"):
        assert all(key in printed for key in described[title])
    for device, ops in described["backends"].items():
        table = printed.split(f"backends of {device} tensors")[1]
        for backend in next(iter(ops.values())):
            assert backend in table.split("conv3x3")[0]
        assert all(op in table for op in ops)


def test_folders_on_the_way_to_the_output_are_made(invoke, run, tmp_path):
    out = tmp_path / "new" / "folders" / "a.png"
    for _ in range(2):
        assert invoke("sample", run, "--out", out).exit_code == 0
    assert png_size(out)
