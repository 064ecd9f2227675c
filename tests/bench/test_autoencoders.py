"""``bench autoencoders``: the comparison, and the message of an engine that does not run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaekernels.bench import autoencoders, competitors, tables
from vaekernels.bench.autoencoders import AutoencoderWorkload
from vaekernels.bench.targets import judge

DECODE = AutoencoderWorkload("taef2", "taef2", "decode", 16)


def _inexact(model: nn.Module, example: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x).detach() * (1 + 1e-2)


def _missing(model: nn.Module, example: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    importlib.import_module("no_such_engine")
    raise AssertionError


def _no_compiler(model: nn.Module) -> nn.Module:
    raise RuntimeError("no compiler")


@pytest.fixture(autouse=True)
def _engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(competitors, "ENGINES", {"mnn": _inexact, "onnxruntime": _missing})
    monkeypatch.setattr(autoencoders, "_compiled", _no_compiler)


def test_a_row() -> None:
    row = autoencoders.measure(DECODE, seconds=0.01)
    assert row["error"] < 1e-5
    assert row["eager_error"] < 1e-5
    assert row["errors"]["mnn"] == pytest.approx(1e-2, rel=1e-2)
    assert row["mnn_error_ratio"] == pytest.approx(row["errors"]["mnn"] / row["error"])
    assert row["mnn_ratio"] == pytest.approx(row["mnn_us"] / row["ours_us"])
    eager = min(row["eager_nchw_us"], row["eager_channels_last_us"])
    assert row["ratio"] == pytest.approx(eager / row["ours_us"])
    assert row["engines_ratio"] is None
    assert row["failed"].keys() == {"onnxruntime", "compile"}
    assert "no_such_engine" in row["failed"]["onnxruntime"]
    assert row["failed"]["compile"] == "RuntimeError: no compiler"
    cells = tables.autoencoder_cells(row)
    assert cells["ORT, ms"] == cells["compile, ms"] == "failed"
    assert cells["to engines"] == cells["OpenVINO, ms"] == "-"


def test_a_target_without_its_engine_is_not_met() -> None:
    row = {"group": "kl", "ratio": 9.0, "engines_ratio": None}
    met = {goal["figure"]: goal["met"] for goal in judge([row], autoencoders.TARGETS)}
    assert met == {
        "ratio": True,
        "engines_ratio": False,
        "mnn_ratio": False,
        "mnn_error_ratio": False,
    }


def test_a_wrong_model_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module, **_: object) -> None:
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)

    monkeypatch.setattr(autoencoders, "accelerate", broken)
    row = autoencoders.measure(DECODE, seconds=0.01)
    assert row["ratio"] is None
    assert "allowed 1.0e-04" in row["wrong"]
    assert "ours_us" not in row


def test_training_compares_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    small = autoencoders._autoencoder_kl((32, 32))
    monkeypatch.setattr(autoencoders, "_autoencoder_kl", lambda channels: small)
    monkeypatch.setattr(
        AutoencoderWorkload,
        "build",
        lambda work: (
            autoencoders.Loss(small, torch.randn(2, 4, 8, 8)),
            torch.rand(2, 3, 16, 16) * 2 - 1,
        ),
    )
    row = autoencoders.measure(
        AutoencoderWorkload("kl-training", "kl", "training", 16), seconds=0.01
    )
    assert row["error"] < 2e-5
    assert row["ours_us"] > 0
    assert row["errors"] == {}


@pytest.mark.parametrize("name", competitors.ENGINES)
def test_engines_compute_the_model(name: str, tmp_path: Path) -> None:
    for module in {"mnn": ("MNN", "onnx"), "ncnn": ("ncnn", "pnnx")}.get(name, (name, "onnx")):
        pytest.importorskip(module)
    model, x = DECODE.build()
    model.eval()
    with torch.no_grad():
        expected = model(x)
        got = importlib.reload(competitors).ENGINES[name](model, x, tmp_path)(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-2)
