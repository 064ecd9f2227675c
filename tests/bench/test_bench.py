"""``vaekernels bench latent``: rows, the record, the options of the command."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map
from typer.testing import CliRunner

from vaekernels.backends import extension
from vaekernels.bench import latent, tables
from vaekernels.bench.memory import peak_bytes
from vaekernels.bench.op_inputs import LATENT
from vaekernels.bench.suites import SUITES
from vaekernels.bench.timing import median_seconds
from vaekernels.bench.workloads import call, inputs_of, measure, of_op
from vaekernels.cli import app

needs_extension = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)


def test_rounds_are_interleaved() -> None:
    calls: list[str] = []

    def contender(name: str):
        def run() -> None:
            calls.append(name)
            torch.ones(300, 300) @ torch.ones(300, 300)

        return run

    medians = median_seconds({"a": contender("a"), "b": contender("b")}, seconds=0.0, min_rounds=3)
    assert set(medians) == {"a", "b"}
    assert all(seconds > 0 for seconds in medians.values())
    changes = sum(first != second for first, second in itertools.pairwise(calls))
    assert changes >= 5


@pytest.mark.parametrize("op", LATENT)
def test_eager_and_ours_compute_the_same(op: str) -> None:
    cases = LATENT[op]
    inputs = inputs_of(cases, (6, 30), torch.Generator().manual_seed(0), grads=True)
    forward = [call(f, cases, inputs, "forward")() for f in (cases.eager, cases.ours)]
    if not cases.deterministic_eager:
        torch.testing.assert_close(forward[0][1], forward[1][1])
        return
    torch.testing.assert_close(*forward)
    for direction in ("backward", "forward+backward"):
        grads = [call(f, cases, inputs, direction)() for f in (cases.eager, cases.ours)]
        for eager, ours in zip(*grads, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", latent.DIRECTIONS)
@pytest.mark.parametrize("op", ("rsample_kl", "laplace_nll"))
def test_a_wrong_result_is_not_timed(op: str, direction: str) -> None:
    work = of_op(op, LATENT[op], (6, 30), direction)
    row = measure(work, seconds=0.0)
    assert 0 <= row["error"] <= row["promise"]
    assert row["ratio"] == pytest.approx(row["eager_us"] / row["ours_us"])

    def wrong(inputs, **options):
        right = work.ours(inputs, **options)
        return lambda: tree_map(lambda tensor: 1.001 * tensor, right())

    row = measure(replace(work, ours=wrong), seconds=0.0)
    assert row["ratio"] is None
    assert "against float64, allowed" in row["wrong"]
    assert "ours_us" not in row


@needs_extension
def test_no_noise_tensor_is_held() -> None:
    """Forward and backward allocate z and the two gradients, and a few numbers per row."""
    cases = LATENT["rsample_kl"]
    shape = (64, 4096)
    inputs = inputs_of(cases, shape, torch.Generator().manual_seed(0), grads=True)
    tensor = 4 * shape[0] * shape[1]
    ours = peak_bytes(call(cases.ours, cases, inputs, "forward+backward"))
    assert 3 * tensor <= ours <= 3.05 * tensor
    assert peak_bytes(call(cases.eager, cases, inputs, "forward+backward")) > 2 * ours


def test_the_record_and_its_means(tmp_path: Path) -> None:
    row = {"op": "gaussian_kl", "direction": "forward", "ratio": 2.0}
    rows = [row, {**row, "ratio": 8.0}, {**row, "op": "rsample_kl", "ratio": 5.0}]
    means = tables.geometric_means(rows)
    assert means["gaussian_kl forward"] == pytest.approx(4.0)
    assert means["losses forward"] == pytest.approx(4.0)
    assert means["rsample_kl forward"] == pytest.approx(5.0)
    path = tmp_path / "new" / "record.json"
    tables.write_json(path, rows, {"cpu": "x"}, {"suite": "latent"}, {"geometric_means": means})
    record = json.loads(path.read_text())
    assert record["machine"] == {"cpu": "x"}
    assert record["rows"] == rows
    assert record["geometric_means"] == means


@pytest.mark.slow
def test_the_command_measures_every_case(tmp_path: Path) -> None:
    path = tmp_path / "latent.json"
    result = CliRunner().invoke(app, ["bench", "latent", "--seconds", "0.001", "--json", str(path)])
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == len(latent.works())
    assert {row["op"] for row in rows} == set(LATENT)
    assert "rsample_kl" in result.output


def test_the_command_measures_one_op(tmp_path: Path) -> None:
    path = tmp_path / "latent.json"
    options = ["--seconds", "0.001", "--only", "gaussian_kl", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "latent", *options])
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text())
    assert {row["op"] for row in record["rows"]} == {"gaussian_kl"}
    assert set(record["geometric_means"]) >= {"gaussian_kl forward"}
    assert "gaussian_kl" in result.output


def test_the_command_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def works(only, **settings):
        return seen.update(only=list(only), **settings) or ["work"]

    def measure(work, *, seconds):
        seen.update(seconds=seconds)
        return {"op": "gaussian_kl", "case": "c", "direction": "forward", "ratio": 1.0}

    suite = replace(SUITES["latent"], works=works, measure=measure, cells=lambda row: {"op": "x"})
    monkeypatch.setitem(SUITES, "latent", suite)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: seen.update(threads=count))
    path = tmp_path / "a.json"
    options = ["--only", "gaussian_kl", "--only", "rsample_kl", "--seconds", "0.125"]
    options += ["--threads", "3", "--dtype", "bfloat16", "--json", str(path)]
    result = CliRunner().invoke(app, ["bench", "latent", *options])
    assert result.exit_code == 0, result.output
    only = ["gaussian_kl", "rsample_kl"]
    assert seen == {
        "only": only,
        "seconds": 0.125,
        "threads": 3,
        "dtype": torch.bfloat16,
        "device": "cpu",
    }
    settings = {"suite": "latent", "dtype": "bfloat16", "seconds": 0.125, "only": only}
    assert json.loads(path.read_text())["settings"] == settings


@pytest.mark.parametrize("option", (["--seconds", "0"], ["--threads", "0"], ["--device", "cuda"]))
def test_bad_options_end_with_two(option: list[str]) -> None:
    if option[1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result = CliRunner().invoke(app, ["bench", "latent", *option])
    assert result.exit_code == 2
    assert option[0] in result.output


def test_info_says_what_runs_and_why_not() -> None:
    result = CliRunner().invoke(app, ["info", "--json"])
    assert result.exit_code == 0
    described = json.loads(result.output)
    assert described["machine"]["torch"] == str(torch.__version__)
    answers = described["backends"]["cpu"]["rsample_kl"]
    assert "runs" in answers.values()
    assert "tensors are on cpu" in answers["cuda"]
    text = CliRunner().invoke(app, ["info"]).output
    assert "rsample_kl" in text
    assert "(1)" in text
