"""A folder decoded batch by batch: the same bits as in memory, in bounded memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from vaekernels.cli import app
from vaekernels.data import folder as folder_module
from vaekernels.data.dataset import (
    Batch,
    Dataset,
    load_batches,
    map_in_order,
    pixel_digest,
)
from vaekernels.data.folder import ImageFolder, scan_folder
from vaekernels.models import VAE
from vaekernels.training import (
    ImageData,
    RunFolder,
    TrainingInterrupted,
    evaluate,
    load_images,
    split,
    train,
)
from vaekernels.training.diagnostics import moments, reconstructions
from vaekernels.training.loop import _Trainer

CPU = torch.device("cpu")
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture
def pictures(images, tmp_path):
    """The 40 squares of ``images`` in four subfolders, some in other modes and formats."""
    for i, (pixels, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        path = tmp_path / "pictures" / f"class {label}"
        path.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(pixels[0].numpy())
        picture.convert(("L", "LA", "1")[i % 3]).save(path / f"{i:02}.{('png', 'tif')[i % 2]}")
    return tmp_path / "pictures"


def whole(data: Dataset) -> Batch:
    return data.get(torch.arange(len(data)))


def no_worker_is_left():
    return multiprocessing.active_children() == []


@WORKERS
def test_the_same_images_as_in_memory(pictures, workers):
    lazy = load_images(pictures, lazy=True, workers=workers)
    memory = load_images(pictures, workers=workers)
    assert isinstance(lazy, ImageFolder)
    assert isinstance(memory, ImageData)
    assert (lazy.shape, lazy.files, len(lazy)) == (memory.shape, memory.files, len(memory))
    for first, second in zip((lazy, *split(lazy, 0.3)), (memory, *split(memory, 0.3)), strict=True):
        ours, theirs = whole(first), whole(second)
        assert ours.x.dtype == torch.uint8
        for name in ("x", "y", "ids"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert f"pixels:{pixel_digest(first)}" == second.fingerprint()
        order = torch.randperm(len(first)).split(4)
        got = list(load_batches(first, order, CPU))
        assert torch.equal(
            torch.cat([batch.x for batch in got]), second.batch(torch.cat(order), CPU)
        )
        assert torch.equal(torch.cat([batch.ids for batch in got]), second.ids[torch.cat(order)])
    assert no_worker_is_left()


@WORKERS
def test_an_interrupted_and_resumed_run_ends_in_the_bits_of_the_one_in_memory(
    pictures, model_config, config, tmp_path, monkeypatch, workers
):
    memory, lazy = load_images(pictures), load_images(pictures, lazy=True, workers=workers)
    expected = train(memory, model_config, config, tmp_path / "memory", progress=False)
    original = _Trainer._step

    def step(self, *arguments):
        if self.step == 9:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "_step", step)
        with pytest.raises(TrainingInterrupted):
            train(lazy, model_config, config, tmp_path / "lazy", progress=False)
        assert no_worker_is_left()
    again = load_images(pictures, lazy=True, workers=2 - workers)
    got = train(again, model_config, config, tmp_path / "lazy", resume=True, progress=False)
    for name in ("checkpoint.safetensors", "model.safetensors"):  # generators and optimizer too
        first, second = (load_file(run.path / name) for run in (expected, got))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[each], second[each]) for each in first)
    times = ("seconds", "images_per_second")
    first, second = (
        [{k: v for k, v in record.items() if k not in times} for record in run.metrics()]
        for run in (expected, got)
    )
    assert first == second
    assert no_worker_is_left()


def test_no_worker_outlives_an_error_or_an_interrupt(pictures):
    data = scan_folder(pictures, workers=2)
    order = torch.arange(40).split(2)
    batches = load_batches(data, order, CPU)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert no_worker_is_left()
    batches = load_batches(data, order, CPU)
    next(batches)
    with pytest.raises(KeyboardInterrupt) as caught:  # whose traceback keeps the frames
        batches.throw(KeyboardInterrupt())
    assert no_worker_is_left()
    del caught
    with pytest.raises(IndexError, match="out of bounds"):  # not an error of a file
        list(load_batches(data, [torch.tensor([40])], CPU))
    assert no_worker_is_left()


@pytest.mark.parametrize("started", ["memory", "earlier version"])
@pytest.mark.parametrize("resumed", ["memory", "lazy"])
def test_a_run_in_memory_is_resumed_either_way(
    pictures, model_config, config, tmp_path, started, resumed
):
    run = tmp_path / "run"
    memory = load_images(pictures)
    folder = train(memory, model_config, replace(config, epochs=1), run, progress=False)
    settings = folder.settings()
    if started == "earlier version":
        digest = settings["data"].pop("fingerprint").removeprefix("pixels:")
        del settings["data"]["options"]
        folder.write_settings({**settings, "data": {**settings["data"], "sha256": digest}})
    lazy, other = resumed == "lazy", replace(config, epochs=2)
    train(load_images(pictures, lazy=lazy), model_config, other, run, resume=True, progress=False)
    train(memory, model_config, other, tmp_path / "whole", progress=False)
    first, second = (load_file(path / "model.safetensors") for path in (run, tmp_path / "whole"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    Image.new("L", (8, 8), 5).save(pictures / "class 1" / "01.tif")
    with pytest.raises(ValueError, match="was trained on other images"):
        train(load_images(pictures, lazy=lazy), model_config, other, run, resume=True)


def test_a_lazy_run_is_resumed_lazily(pictures, model_config, config, tmp_path):
    run = tmp_path / "run"
    config = replace(config, epochs=1)
    train(load_images(pictures, lazy=True), model_config, config, run, progress=False)
    with pytest.raises(ValueError, match="read it with lazy=True to resume"):
        train(load_images(pictures), model_config, config, run, resume=True, progress=False)


def test_decoded_images_are_bounded_without_workers(pictures, model_config, config, monkeypatch):
    alive, most = set(), {"decoded": 0, "batches": 0}
    decode, get = folder_module.decode, ImageFolder.get

    def count(kind, tensor):
        alive.add((kind, id(tensor)))
        weakref.finalize(tensor, alive.discard, (kind, id(tensor)))
        most[kind] = max(most[kind], sum(each == kind for each, _ in alive))
        return tensor

    def counted_get(self, index):
        batch = get(self, index)
        assert len(batch.x) <= config.batch
        return replace(batch, x=count("batches", batch.x))

    monkeypatch.setattr(folder_module, "decode", lambda *a: count("decoded", decode(*a)))
    monkeypatch.setattr(ImageFolder, "get", counted_get)
    data = load_images(pictures, lazy=True)
    train(data, model_config, config, pictures.parent / "run", progress=False)
    assert most["decoded"] <= 2  # one, and the one before while its name is bound
    assert most["batches"] <= 2


def test_workers_decode_at_most_two_batches_ahead(pictures, tmp_path):
    started = tmp_path / "started"
    data = scan_folder(pictures)

    def get(index):
        with started.open("a") as log:  # appends of a line are atomic
            log.write("batch\n")
        return data.get(index)

    taken = map_in_order(get, torch.arange(40).split(2), 2, "fork")
    for count, _ in zip(range(1, 11), taken, strict=False):
        assert len(started.read_text().splitlines()) <= count + 2 * 2
    taken.close()


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_start_methods(pictures, context):
    data = scan_folder(pictures)
    got = list(map_in_order(data.get, torch.arange(40).split(16), 2, context))
    assert torch.equal(torch.cat([batch.x for batch in got]), whole(data).x)


def test_the_working_directory_may_change(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = load_images("pictures", lazy=True)
    assert data.name == "pictures"
    monkeypatch.chdir(pictures)
    assert torch.equal(whole(data).x, load_images(pictures).images)


def test_workers_leave_the_generator_alone(pictures):
    before = torch.get_rng_state()
    list(load_batches(scan_folder(pictures, workers=1), torch.arange(40).split(20), CPU))
    assert torch.equal(torch.get_rng_state(), before)


@WORKERS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "has vanished since the folder was scanned"),
        (lambda path: path.write_bytes(b"short"), "has changed since .* now 5 bytes|now 5, "),
        (lambda path: os.utime(path, (1, 1)), "has changed since"),
    ],
    ids=["vanished", "other bytes", "touched"],
)
def test_files_that_change_during_a_run_are_named(
    pictures, model_config, config, tmp_path, monkeypatch, workers, change, message
):
    data = load_images(pictures, lazy=True, workers=workers)
    original = _Trainer._save

    def save(self, folder):  # after the first epoch
        original(self, folder)
        if self.done.epoch == 1:
            change(pictures / "class 2" / "02.png")

    monkeypatch.setattr(_Trainer, "_save", save)
    with pytest.raises(ValueError, match=rf"class 2/02\.png: the file {message}"):
        train(data, model_config, config, tmp_path / "run", progress=False)
    assert len(RunFolder(tmp_path / "run").metrics()) == 1
    assert no_worker_is_left()


def test_fingerprint(pictures, tmp_path):
    def fingerprint(path=pictures, **options):
        return scan_folder(path, **options).fingerprint()

    before = fingerprint()
    assert before.startswith("files:")
    assert fingerprint(workers=2) == before
    copy = shutil.copytree(pictures, tmp_path / "copy", copy_function=shutil.copyfile)
    assert fingerprint(copy) == before
    seen = {before, fingerprint(background="black"), fingerprint(channels=3)}
    data = scan_folder(pictures)
    seen |= {part.fingerprint() for part in split(data, 0.5)}
    seen.add(data.take(torch.arange(40).flip(0)).fingerprint())
    (copy / "class 0" / "00.png").rename(copy / "class 0" / "0.png")
    seen.add(fingerprint(copy))
    Image.new("L", (8, 8), 77).save(copy / "class 1" / "01.tif")
    seen.add(fingerprint(copy))
    assert len(seen) == 8


def test_what_reads_a_dataset_reads_a_folder(pictures, model_config, config, tmp_path):
    lazy, memory = load_images(pictures, lazy=True, workers=2), load_images(pictures)
    train(memory, model_config, replace(config, epochs=1), tmp_path / "run", progress=False)
    model = VAE.from_pretrained(tmp_path / "run")
    assert evaluate(model, lazy, batch=16) == evaluate(model, memory, batch=16)
    for function, count in ((moments, ()), (reconstructions, (5,))):
        for ours, theirs in zip(
            function(model, lazy, *count), function(model, memory, *count), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_lazy_by_itself_where_memory_is_short(pictures, monkeypatch):
    needed = 40 * 64
    for memory, kind in ((None, ImageData), (2 * needed, ImageData), (2 * needed - 2, ImageFolder)):
        monkeypatch.setattr("vaekernels.data.images.total_memory", lambda memory=memory: memory)
        assert type(load_images(pictures, lazy=None)) is kind
    assert type(load_images(pictures)) is ImageData


def test_only_folders_are_lazy(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="only a folder of images can be read lazily"):
        load_images(tmp_path / "a.npz", lazy=True)
    assert type(load_images(tmp_path / "a.npz", lazy=None)) is ImageData
    with pytest.raises(ValueError, match="workers must not be negative; got -1"):
        load_images(tmp_path, workers=-1)


def test_unequal_sizes(tmp_path):
    for name, size in (("a", (6, 4)), ("b", (4, 6)), ("c", (6, 4))):
        Image.new("L", size).save(tmp_path / f"{name}.png")
    data = scan_folder(tmp_path)  # an EXIF orientation could make them equal
    with pytest.raises(ValueError, match=r"b\.png: image of 6 x 4 pixels.* --image-size"):
        whole(data)
    Image.new("L", (9, 4)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png: image of 4 x 9 pixels.* --image-size"):
        scan_folder(tmp_path)
    assert whole(scan_folder(tmp_path, (5, 3))).x.shape == (3, 1, 5, 3)


@pytest.mark.filterwarnings("ignore:data .* left out")
def test_the_commands(pictures, tmp_path, monkeypatch):
    def invoke(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    monkeypatch.setattr("vaekernels.data.images.total_memory", lambda: 100)
    Image.new("LA", (8, 8), (200, 0)).save(pictures / "class 0" / "00.png")
    (pictures / "class 3" / "zz.png").write_text("not an image")
    run, options = tmp_path / "run", ["--hidden", 4, "--latent-dim", 3, "--device", "cpu"]
    reading = ["--background", "#0a0a0a", "--no-strict", "--workers", 1]
    result = invoke("train", pictures, "--out", run, "--epochs", 1, *options, *reading)
    assert result.exit_code == 0, result.output
    stored = json.loads((run / "train_config.json").read_text())["data"]
    assert stored["fingerprint"].startswith("files:")
    expected = {"background": "#0a0a0a", "strict": False, "workers": 1, "lazy": True}
    assert stored["options"] == expected
    result = invoke("train", pictures, "--out", run, "--resume", "--epochs", 2, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert json.loads((run / "train_config.json").read_text())["data"]["options"] == {
        **expected,
        "workers": 0,
    }
    result = invoke("train", pictures, "--out", run, "--resume", "--background", "white")
    assert result.exit_code == 2
    assert "was trained on other images" in result.stderr
    for command, out in (("encode", "a.safetensors"), ("reconstruct", "a.png")):
        result = invoke(command, run, pictures, "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
    result = invoke("traverse", run, pictures, "--out", tmp_path / "b.png", "--image", 1)
    assert result.exit_code == 0, result.output
    result = invoke("train", pictures, "--out", tmp_path / "other", "--background", "nocolour")
    assert result.exit_code == 2
    assert "background must be a colour such as white" in result.stderr
