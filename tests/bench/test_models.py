"""``bench models``: both sides are the same model with the same gradients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from vaekernels.bench import eager_vae, models
from vaekernels.bench.accuracy import Verdict
from vaekernels.bench.suites import SUITES
from vaekernels.bench.targets import judge
from vaekernels.bench.training_steps import of_vae
from vaekernels.cli import app
from vaekernels.demo import Settings
from vaekernels.models import VAE, VAEConfig
from vaekernels.ops import randn

pytestmark = pytest.mark.usefixtures("reference")
TINY = replace(
    models.DCGAN,
    name="tiny",
    config=VAEConfig(image_shape=(3, 8, 8), latent_dim=3, hidden=(4, 6)),
    batch=4,
)


def _fails(*given: object) -> Tensor:
    raise RuntimeError("no compiler\nat all")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda loss: _fails)


@pytest.mark.parametrize("activation", ["relu", "silu", "leaky_relu", "tanh"])
def test_the_twin_is_the_same_model(activation: str) -> None:
    config = replace(TINY.config, activation=activation)
    torch.manual_seed(0)
    model = VAE(config)
    twin = eager_vae.from_model(model)
    assert twin.state_dict().keys() == model.state_dict().keys()
    images = torch.rand(4, 3, 8, 8)
    eps = randn((4, 3), seed=5, dtype=torch.float32)
    torch.testing.assert_close(eager_vae.loss(twin, images, eps), model(images, seed=5).loss)
    step = of_vae(model, images, lr=0.1)
    verdict = models.gradient_verdict(step)
    assert 0 < verdict.eager_error < 1e-5
    assert verdict.error < 1e-5
    assert models.loss_error(step) < 1e-6


def test_the_twin_says_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="backbone conv and likelihood bernoulli; got mlp"):
        eager_vae.EagerVAE(VAEConfig((1, 4, 4), 2, backbone="mlp", hidden=(4,)))


@pytest.mark.usefixtures("no_compiler")
def test_a_row_without_a_compiler_says_so() -> None:
    row = models.measure(TINY, seconds=0.0)
    assert row["compile_us"] is None
    assert row["compile_failed"] == "RuntimeError: no compiler"
    eager = {name: row[f"{name}_us"] for name in ("eager_nchw", "eager_channels_last")}
    assert row["ratio"] == pytest.approx(min(eager.values()) / row["ours_us"])
    assert row["fastest"] == min(eager, key=lambda name: eager[name])
    assert row["error_ratio"] == row["error"] / row["eager_error"]


def test_the_compiled_step_is_a_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda loss: loss)
    row = models.measure(TINY, seconds=0.0)
    assert row["compile_failed"] is None
    assert row["compile_us"] > 0


def test_a_step_changes_its_own_weights_alone() -> None:
    model = VAE(TINY.config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(4, 3, 8, 8)
    step = of_vae(model, images, lr=0.1)
    for side in step.sides().values():
        first = next(side.model.parameters()).clone()
        step.call(side)()
        assert not torch.equal(first, next(side.model.parameters()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_wrong_gradients_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Verdict(1e-3, 1e-6, 2e-5, 50.0)
    monkeypatch.setattr(models, "gradient_verdict", lambda step: wrong)
    row = models.measure(TINY, seconds=0.0)
    assert row["ratio"] is None
    assert "1.0e-03 from float64, allowed 2.0e-05" in row["wrong"]
    assert "ours_us" not in row
    assert not any(goal["met"] for goal in judge([row], models.TARGETS))


def test_a_wrong_loss_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "loss_error", lambda *given: float("nan"))
    row = models.measure(TINY, seconds=0.0)
    assert row["ratio"] is None
    assert row["wrong"].startswith("loss is nan from float64")


def test_the_demo_is_that_of_the_demo() -> None:
    demo, settings = models.DEMO, Settings()
    assert (demo.config.hidden, demo.config.latent_dim) == (settings.hidden, settings.latent_dim)
    assert (demo.batch, demo.lr) == (settings.batch, settings.lr)


@pytest.mark.usefixtures("no_compiler")
def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SUITES, "models", replace(SUITES["models"], works=lambda only: [TINY]))
    path = tmp_path / "models.json"
    options = ["--seconds", "0.001", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "models", *options])
    assert result.exit_code == 0, result.output
    assert "failed" in result.stdout
    record = json.loads(path.read_text())
    assert [goal["figure"] for goal in record["goals"]] == ["ratio", "error_ratio"]
    assert record["rows"][0]["config"]["hidden"] == [4, 6]
