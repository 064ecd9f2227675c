"""Broken checkpoints, losses that are not finite, a full disk."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vaekernels.models import VAE
from vaekernels.objectives import ELBO, LossTerms
from vaekernels.training import CheckpointError, NonFiniteLossError, RunFolder, train
from vaekernels.training.metrics import Meter, likely_cause


@pytest.fixture
def run(images, model_config, config, tmp_path):
    return train(images, model_config, replace(config, epochs=1), tmp_path / "run", progress=False)


def resume(images, model_config, config, run):
    train(images, model_config, config, run.path, resume=True, progress=False)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_checkpoint(images, model_config, config, run, size):
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=rf"{run.checkpoint} is truncated or not"):
        resume(images, model_config, config, run)


def test_missing_checkpoint(images, model_config, config, run):
    run.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="does not exist: there is nothing to resume"):
        resume(images, model_config, config, run)


def test_pickled_checkpoint_is_not_loaded(images, model_config, config, run):
    torch.save({"model": torch.zeros(1)}, run.checkpoint)
    with pytest.raises(CheckpointError, match="is truncated or not a safetensors file"):
        resume(images, model_config, config, run)


def test_foreign_checkpoint(images, model_config, config, run):
    save_file({"a": torch.zeros(1)}, run.checkpoint)
    with pytest.raises(CheckpointError, match="expected the format 'vaekernels checkpoint 1'"):
        resume(images, model_config, config, run)


def test_checkpoint_of_another_model(images, model_config, config, run, tmp_path):
    bigger = replace(model_config, latent_dim=7)
    other = train(images, bigger, replace(config, epochs=1), tmp_path / "other", progress=False)
    run.checkpoint.write_bytes(other.checkpoint.read_bytes())
    with pytest.raises(CheckpointError, match="is of another model"):
        resume(images, model_config, config, run)


def test_diverged_training_stops_and_names_step_term_and_hint(
    images, model_config, config, tmp_path
):
    path = tmp_path / "run"
    with pytest.raises(NonFiniteLossError) as caught:
        train(images, model_config, replace(config, lr=1e30), path, progress=False)
    message = str(caught.value)
    assert "training stopped at step 1 (epoch 1)" in message
    assert "nll is" in message or "kl is" in message
    assert "--lr than 1e+30" in message
    assert "keeps the weights of epoch 0" in message
    model = VAE.from_pretrained(path)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_no_checkpoint_is_made_of_broken_weights(images, model_config, config, tmp_path):
    # One step: its loss is finite, the weights after it are not usable.
    config = replace(config, lr=1e30, batch=64, epochs=1)
    with pytest.raises(NonFiniteLossError, match=r"step 0 \(epoch 1\): held-out"):
        train(images, model_config, config, tmp_path / "run", progress=False)
    assert RunFolder(tmp_path / "run").metrics() == []


def output(loss, nll, kl):
    return LossTerms(
        torch.tensor(loss), {"nll": torch.tensor([nll, 1.0]), "kl": torch.tensor([kl, 1.0])}
    )


def test_meter_finds_the_step_in_a_block():
    meter = Meter(torch.device("cpu"), ELBO())
    meter.interval = 4  # as on a GPU: the values are not read at every step
    nan, inf = float("nan"), float("inf")
    assert meter.add(6, output(3.0, 2.0, 1.0), 2) is None
    assert meter.add(7, output(inf, 2.0, inf), 2) is None
    assert meter.add(7, output(nan, nan, nan), 2) is None
    assert meter.add(8, output(nan, nan, nan), 2) == (7, "kl is inf")


def test_meter_weighs_batches_by_their_size():
    meter = Meter(torch.device("cpu"), ELBO())
    meter.add(0, output(3.0, 2.0, 1.0), 3)
    meter.add(1, output(7.0, 2.0, 1.0), 1)
    assert meter.names == ("nll", "kl")
    assert meter.total.tolist() == pytest.approx([16.0, 6.0, 4.0, 4.0])
    assert meter.last == {"loss": 7.0, "nll": 1.5, "kl": 1.0, "elbo": -2.5}
    assert meter.last.elbo == -2.5
    with pytest.raises(AttributeError, match="no loss vq; there are loss, nll, kl, elbo"):
        _ = meter.last.vq


def test_likely_cause(model_config, config):
    model = VAE(model_config)
    assert "try --amp bf16" in likely_cause(model, replace(config, amp="fp16"), "kl is nan")
    cause = likely_cause(model, config, "kl is nan")
    assert "kl is not" in cause
    assert "vk.detect_nonfinite()" in cause


def full_disk(monkeypatch, after=0):
    """Every write to the disk fails, after so many that did not."""
    original, calls = os.fsync, [0]

    def fsync(descriptor):
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_no_space_for_a_new_run(images, model_config, config, tmp_path, monkeypatch):
    full_disk(monkeypatch, after=3)
    with pytest.raises(OSError, match="No space left on device"):
        train(images, model_config, config, tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_no_space_keeps_the_run_that_would_be_overwritten(
    images, model_config, config, run, monkeypatch
):
    before = run.checkpoint.read_bytes()
    full_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left on device"):
        train(images, model_config, config, run.path, overwrite=True, progress=False)
    assert run.checkpoint.read_bytes() == before
    assert [path.name for path in run.path.parent.iterdir()] == ["run"]


def test_no_space_for_a_checkpoint_keeps_the_last(
    images, model_config, config, run, tmp_path, monkeypatch
):
    before = run.checkpoint.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch, after=2)  # the settings fit, with their folder's entry
        with pytest.raises(OSError, match="No space left on device") as caught:
            resume(images, model_config, config, run)
    assert caught.value.filename == str(run.checkpoint)
    assert run.checkpoint.read_bytes() == before
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]
    resume(images, model_config, config, run)
    assert len(run.metrics()) == 4


def changed(path, drop=(), tensors=(), metadata=()):
    """The checkpoint again, without some entries and with others."""
    with safe_open(path, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        notes = file.metadata()
    kept, notes = {**kept, **dict(tensors)}, {**notes, **dict(metadata)}
    for name in drop:
        kept.pop(name, None)
        notes.pop(name, None)
    save_file(kept, path, notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["rng.cpu"]}, "expected rng.cpu"),
        ({"tensors": {"rng.cpu": torch.zeros(3)}}, "expected rng.cpu"),
        ({"tensors": {"rng.cpu": torch.zeros(3, dtype=torch.uint8)}}, "expected rng.cpu"),
        ({"drop": ["scaler"]}, "expected scaler"),
        ({"metadata": {"scaler": "{"}}, "expected scaler"),
        ({"drop": ["progress"]}, "expected progress"),
        ({"metadata": {"progress": "[]"}}, "expected progress"),
        ({"metadata": {"progress": '{"epoch": 1}'}}, "expected progress"),
        ({"metadata": {"progress": '{"steps": 1}'}}, "expected progress"),
        (
            {"metadata": {"progress": '{"epoch": "1", "step": 4, "history": [{}]}'}},
            "expected progress",
        ),
        ({"drop": ["optimizer.0.step"]}, "expected the state of Adam of parameter 0"),
        ({"drop": ["optimizer.3.exp_avg"]}, "expected the state of Adam of parameter 3"),
        ({"tensors": {"optimizer.0.exp_avg": torch.zeros(3)}}, "the state of Adam of parameter 0"),
        ({"tensors": {"optimizer.x": torch.zeros(3)}}, "no parameter x"),
        ({"tensors": {"optimizer.99.step": torch.zeros(())}}, "no parameter 99"),
        ({"drop": ["model.decoder.input.bias"]}, "is of another model"),
    ],
)
def test_incomplete_checkpoint(images, model_config, config, run, change, message):
    changed(run.checkpoint, **change)
    with pytest.raises(CheckpointError, match=f"^checkpoint {run.checkpoint}.*{message}"):
        resume(images, model_config, config, run)


def test_checkpoint_without_any_state_of_the_optimizer(images, model_config, config, run):
    with safe_open(run.checkpoint, "pt") as file:
        names = [name for name in file.keys() if name.startswith("optimizer")]  # noqa: SIM118
    changed(run.checkpoint, drop=names)
    with pytest.raises(CheckpointError, match="expected the state of Adam of parameter 0"):
        resume(images, model_config, config, run)


def test_checkpoint_of_fp16_needs_its_scale(images, model_config, config, tmp_path):
    config = replace(config, amp="fp16", epochs=1)
    run = train(images, model_config, config, tmp_path / "run", progress=False)
    for state in ("{}", '{"scale": 1.0}', '"x"'):
        changed(run.checkpoint, metadata={"scaler": state})
        with pytest.raises(CheckpointError, match=r"expected scaler, the state of torch\.amp"):
            resume(images, model_config, replace(config, epochs=2), run)


def test_broken_metrics_are_named(run):
    run.metrics_file.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: expected JSON"):
        run.metrics()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["ema.n_averaged"]}, "is of another model"),
        ({"drop": ["ema.module.decoder.input.bias"]}, "is of another model"),
        ({"drop": ["optimizer.0.momentum_buffer"]}, "expected the state of SGD of parameter 0"),
    ],
)
def test_incomplete_checkpoint_of_other_settings(
    images, model_config, config, tmp_path, change, message
):
    config = replace(config, optimizer="sgd", lr=1e-4, momentum=0.9, ema=0.9, epochs=1)
    run = train(images, model_config, config, tmp_path / "run", progress=False)
    changed(run.checkpoint, **change)
    with pytest.raises(CheckpointError, match=message):
        resume(images, model_config, config, run)
