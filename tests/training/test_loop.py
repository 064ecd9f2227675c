"""Training, and resuming it: bit for bit the run that was never interrupted."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vaekernels.models import VAE
from vaekernels.training import RunFolder, TrainingInterrupted, evaluate, split, train
from vaekernels.training.config import OPTIMIZERS
from vaekernels.training.loop import _Trainer


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def without_times(history):
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "images_per_second")}
        for record in history
    ]


def fail_at_step(monkeypatch, number, error):
    original = _Trainer._step

    def step(self, *arguments):
        if self.step == number:
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(_Trainer, "_step", step)


def test_run_folder(images, model_config, config, tmp_path):
    folder = train(images, model_config, config, tmp_path / "run", progress=False)
    assert sorted(file.name for file in folder.path.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "metrics.jsonl",
        "model.safetensors",
        "train_config.json",
    ]
    history = folder.metrics()
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert [record["step"] for record in history] == [4, 8, 12, 16]
    assert history[-1]["heldout_elbo"] > history[0]["heldout_elbo"]
    assert history[-1]["elbo"] == pytest.approx(-history[-1]["nll"] - history[-1]["kl"])
    settings = folder.settings()
    assert (settings["data"]["images"], settings["data"]["heldout"]) == (30, 10)
    heldout = split(images, config.heldout)[1]
    losses = evaluate(VAE.from_pretrained(folder.path), heldout, batch=8, seed=config.seed)
    assert losses.elbo == pytest.approx(history[-1]["heldout_elbo"], rel=1e-6)
    # The noise goes with the image: another batch size measures the same.
    other = evaluate(VAE.from_pretrained(folder.path), heldout, batch=3, seed=config.seed)
    assert other.elbo == pytest.approx(losses.elbo, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amp": "fp16"},
        {"grad_clip": 0.5, "free_bits": 0.1},
        *({"optimizer": name} for name in OPTIMIZERS if name != "adam"),
        {"optimizer": "nadam", "amp": "fp16"},
        {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-3},
        {"optimizer": "rmsprop", "momentum": 0.9, "weight_decay": 0.1},
        {"ema": 0.9},
        {"accumulate": 3},
        {"lr_warmup_epochs": 2.5},
        {"objective": "iwae", "kl_warmup_epochs": 0.0, "importance_samples": 2},
    ],
    ids=str,
)
def test_resumed_run_ends_bit_identical(images, model_config, config, tmp_path, changes):
    config = replace(config, **changes)
    train(images, model_config, config, tmp_path / "whole", progress=False)
    half = replace(config, epochs=2)
    train(images, model_config, half, tmp_path / "halves", progress=False)
    torch.rand(7)  # the generator of another process is elsewhere
    folder = train(images, model_config, config, tmp_path / "halves", resume=True, progress=False)
    assert_same_weights(tmp_path / "whole", tmp_path / "halves")
    whole = RunFolder(tmp_path / "whole").metrics()
    assert without_times(folder.metrics()) == without_times(whole)
    assert folder.settings()["train"]["epochs"] == 4


@pytest.mark.parametrize(
    "changes", [{}, {"schedule": "cosine", "lr_warmup_epochs": 1.5}, {"schedule": "linear"}]
)
@pytest.mark.parametrize("learned", [False, True])
def test_run_killed_in_mid_epoch_ends_bit_identical(
    images, model_config, config, tmp_path, monkeypatch, learned, changes
):
    config = replace(config, ema=0.5, **changes) if changes else config
    if learned:  # a weight without dims
        model_config = replace(model_config, likelihood="gaussian", scale="learned")
    train(images, model_config, config, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        fail_at_step(patch, 10, RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            train(images, model_config, config, tmp_path / "killed", progress=False)
    assert len(RunFolder(tmp_path / "killed").metrics()) == 2
    train(images, model_config, config, tmp_path / "killed", resume=True, progress=False)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


def test_run_killed_between_checkpoint_and_model(
    images, model_config, config, tmp_path, monkeypatch
):
    config = replace(config, epochs=1)
    train(images, model_config, config, tmp_path / "whole", progress=False)
    original = _Trainer._export

    def export(self, folder):
        if self.done.epoch == 1:
            raise RuntimeError("killed")
        original(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "_export", export)
        with pytest.raises(RuntimeError, match="killed"):
            train(images, model_config, config, tmp_path / "killed", progress=False)
    train(images, model_config, config, tmp_path / "killed", resume=True, progress=False)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


def test_interrupt_in_the_first_epoch_can_be_resumed(
    images, model_config, config, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_at_step(patch, 2, KeyboardInterrupt())
        with pytest.raises(TrainingInterrupted, match=r"at step 2; .*epoch 0 of 4; .*--resume"):
            train(images, model_config, config, run, progress=False)
    train(images, model_config, config, run, resume=True, progress=False)
    train(images, model_config, config, tmp_path / "whole", progress=False)
    assert_same_weights(tmp_path / "whole", run)


def test_bf16_trains(images, model_config, config, tmp_path):
    config = replace(config, amp="bf16", epochs=1)
    folder = train(images, model_config, config, tmp_path / "run", progress=False)
    assert weights(folder.path)["encoder.moments.weight"].dtype == torch.float32


def test_existing_folders(images, model_config, config, tmp_path):
    config = replace(config, epochs=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not the folder of a run"):
            train(images, model_config, config, other, overwrite=overwrite, progress=False)
    assert (other / "letter.txt").read_text() == "dear"
    run = tmp_path / "run"
    (run / ".new").mkdir(parents=True)  # an empty folder may be used, or what a kill left
    train(images, model_config, config, run, progress=False)
    with pytest.raises(FileExistsError, match=r"already holds a run; .*--resume.*--overwrite"):
        train(images, model_config, config, run, progress=False)
    for number in range(40):  # whatever the order in which a folder is read
        (run / f"of an earlier run {number}").write_text("")
    train(images, model_config, replace(config, seed=6), run, overwrite=True, progress=False)
    assert not list(run.glob("of an earlier run*"))
    assert RunFolder(run).settings()["train"]["seed"] == 6
    assert {path.name for path in tmp_path.iterdir()} == {"other", "run"}
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_current_folder_and_links_can_be_run_folders(
    images, model_config, config, tmp_path, monkeypatch
):
    config = replace(config, epochs=1)
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real, target_is_directory=True)
    train(images, model_config, config, link, progress=False)
    assert link.is_symlink()
    assert RunFolder(real).checkpoint.exists()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    train(images, model_config, config, ".", progress=False)
    assert RunFolder(here).checkpoint.exists()


def test_resume_refuses_what_would_not_be_the_same_run(images, model_config, config, tmp_path):
    run = tmp_path / "run"
    config = replace(config, epochs=2)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        train(images, model_config, config, run, resume=True, progress=False)
    train(images, model_config, config, run, progress=False)

    def resume(data=images, model=model_config, settings=config):
        train(data, model, settings, run, resume=True, progress=False)

    with pytest.raises(ValueError, match=r"was started with lr 0\.01; .*with 0\.5"):
        resume(settings=replace(config, lr=0.5))
    with pytest.raises(ValueError, match=r"was started with latent_dim 3; .*with 4"):
        resume(model=replace(model_config, latent_dim=4))
    with pytest.raises(ValueError, match=r"already trained for 2 epochs; .*got 1"):
        resume(settings=replace(config, epochs=1))
    with pytest.raises(ValueError, match=r"was started with ema 0\.0; .*with 0\.9"):
        resume(settings=replace(config, ema=0.9))
    with pytest.raises(ValueError, match="was trained on other images"):
        resume(data=replace(images, images=255 - images.images))
    (run / "train_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"train_config\.json: not a JSON file"):
        resume()


def test_images_that_do_not_fit_the_model(images, model_config, config, tmp_path):
    model_config = replace(model_config, image_shape=(3, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\); the model expects \(3, 8, 8\)"):
        train(images, model_config, config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_one_line_for_each_epoch(images, model_config, config, tmp_path, capsys):
    train(images, model_config, replace(config, epochs=2), tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    assert "held-out ELBO" in lines[1]


def test_metrics_are_json(images, model_config, config, tmp_path):
    folder = train(
        images, model_config, replace(config, epochs=1), tmp_path / "run", progress=False
    )
    for line in folder.metrics_file.read_text().splitlines():
        assert json.loads(line)["beta"] == pytest.approx(3 / 8)


def test_epochs_of_a_falling_learning_rate_stay(images, model_config, config, tmp_path):
    config = replace(config, epochs=1, schedule="cosine")
    train(images, model_config, config, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"was started with epochs 1; --resume cannot .*with 2"):
        train(
            images,
            model_config,
            replace(config, epochs=2),
            tmp_path / "run",
            resume=True,
            progress=False,
        )


def test_a_run_of_an_earlier_version_resumes(images, model_config, config, tmp_path):
    half = replace(config, epochs=2)
    folder = train(images, model_config, half, tmp_path / "run", progress=False)
    settings = json.loads(folder.settings_file.read_text())
    assert settings.pop("kind") == "vae"
    earlier = "epochs batch lr beta kl_warmup_epochs free_bits grad_clip amp heldout seed device"
    settings["train"] = {name: settings["train"][name] for name in earlier.split()}
    folder.settings_file.write_text(json.dumps(settings))
    train(images, model_config, config, tmp_path / "run", resume=True, progress=False)
    train(images, model_config, config, tmp_path / "whole", progress=False)
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_metrics_as_a_table(images, model_config, config, tmp_path):
    folder = train(
        images, model_config, replace(config, epochs=1), tmp_path / "run", progress=False
    )
    train(images, model_config, replace(config, epochs=2), folder.path, resume=True, progress=False)
    with open(folder.path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    history = folder.metrics()
    assert len(rows) == 2
    for row, record in zip(rows, history, strict=True):
        assert {name: float(value) for name, value in row.items()} == record


def test_a_record_and_the_model_say_that_weights_are_averaged(
    images, model_config, config, tmp_path, capsys
):
    config = replace(config, ema=0.5, epochs=1)
    folder = train(images, model_config, config, tmp_path / "run")
    with safe_open(folder.path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "weights": "average with decay 0.5"}
    assert "held-out (averaged weights) ELBO" in capsys.readouterr().out
    record = folder.metrics()[-1]
    assert record["ema"] == 0.5
    heldout = split(images, config.heldout)[1]
    losses = evaluate(VAE.from_pretrained(folder.path), heldout, batch=8, seed=config.seed)
    assert losses.elbo == pytest.approx(record["heldout_elbo"], rel=1e-6)
    last = load_checkpoint_weights(folder)
    assert not torch.equal(last, weights(folder.path)["encoder.moments.weight"])


def load_checkpoint_weights(folder):
    with safe_open(folder.checkpoint, "pt") as file:
        return file.get_tensor("model.encoder.moments.weight")
