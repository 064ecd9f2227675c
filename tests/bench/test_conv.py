"""``bench conv``: each row checks what it times, on every path; the targets are judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

import vaekernels as vk
from vaekernels.backends import extension
from vaekernels.bench import conv, workloads
from vaekernels.bench.conv_gradients import (
    CONV3X3,
    DOWNSAMPLE3X3,
    DOWNSAMPLE4X4,
    TRANSPOSE4X4,
    UPSAMPLE,
)
from vaekernels.bench.op_inputs import ConvShape
from vaekernels.bench.suites import SUITES
from vaekernels.bench.targets import Target, every_row, judge, mean_of
from vaekernels.bench.workloads import Workload, inputs_of, laid_out, measure
from vaekernels.cli import app

pytestmark = pytest.mark.usefixtures("reference")
DIRECTIONS = ("forward", "training forward", "input gradient", "weight gradient")


def tiny(**options: Any) -> Workload:
    return conv.convolution("odd", CONV3X3, (2, 8, 9), 5, **options)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", [CONV3X3, DOWNSAMPLE4X4, TRANSPOSE4X4], ids=lambda op: op.op)
def test_every_direction_is_checked_and_timed(op: Any, direction: Any) -> None:
    row = measure(
        conv.convolution("odd", op, (2, 8, 9), 5, direction=direction, precision="highest"),
        seconds=0.0,
    )
    assert 0 <= row["error"] <= row["promise"] < 2e-5
    eager = [row[f"eager_{layout}_us"] for layout in workloads.LAYOUTS]
    assert row["ratio"] == pytest.approx(min(eager) / row["ours_us"])
    assert row["same_layout_ratio"] == pytest.approx(eager[1] / row["ours_us"])
    assert row["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("op", [UPSAMPLE, *DOWNSAMPLE3X3], ids=lambda op: op.label + op.op)
def test_the_other_convolutions(op: Any) -> None:
    row = measure(conv.convolution("odd", op, (2, 8, 9), 5), seconds=0.0)
    assert row["error"] <= row["promise"] == 2e-5


def test_a_wrong_result_has_no_time() -> None:
    good = tiny()
    for wrong in (1.0001, float("nan")):
        broken = replace(good, ours=lambda t, by=wrong: lambda: good.ours(t)() * by)
        row = measure(broken, seconds=0.0)
        assert row["ratio"] is None
        assert "against float64, allowed 2.0e-05" in row["wrong"]
        assert "ours_us" not in row
        (goal,) = judge([row], conv.TARGETS)
        assert goal["met"] is False


def test_layouts_of_the_inputs() -> None:
    inputs = tiny(direction="weight gradient").inputs(torch.Generator().manual_seed(0))
    assert list(inputs) == ["x", "weight", "bias", "grad0"]
    eager = laid_out(inputs, "channels_last")
    ours = laid_out(inputs, "channels_last", filters=False)
    for name in ("x", "grad0"):
        assert ours[name].is_contiguous(memory_format=torch.channels_last)
    assert eager["weight"].is_contiguous(memory_format=torch.channels_last)
    assert ours["weight"].is_contiguous()
    assert all(laid_out(inputs, "nchw")[name].is_contiguous() for name in inputs)


def test_threads_are_those_of_the_row_and_come_back() -> None:
    before = torch.get_num_threads()
    assert measure(tiny(threads=1), seconds=0.0)["threads"] == 1
    assert torch.get_num_threads() == before


def test_every_goal_has_rows_and_every_row_a_goal() -> None:
    rows = conv.works()
    assert {row.group for row in rows} == set(conv.TARGETS)
    assert len({(row.group, row.name) for row in rows}) == len(rows)
    assert [row.group for row in conv.works(["upsample"])] == ["upsample"] * 5
    assert any(row.threads == 1 for row in rows if row.group == "odd")


def test_goals_are_judged() -> None:
    rows = [{"group": "a", "ratio": ratio, "loss": 3.0} for ratio in (2.0, 8.0)]
    goals = {"a": (mean_of(4.0), every_row(2.5), Target(3.0, "greatest", "loss")), "b": ()}
    mean, least, greatest = judge(rows, goals)
    assert mean["measured"] == pytest.approx(4.0)
    assert (least["measured"], least["met"], least["goal"]) == (2.0, False, 2.5)
    assert (greatest["measured"], greatest["met"], greatest["at"]) == (3.0, True, "most")
    assert judge([{"group": "a", "ratio": None, "loss": None}], goals)[0]["measured"] is None


def test_a_row_names_its_algorithm() -> None:
    assert measure(tiny(), seconds=0.0)["algorithm"] == "reference"


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_algorithm_is_that_of_the_direction(direction: Any) -> None:
    """It is chosen from sizes: nothing is computed."""
    row = conv.convolution("odd", UPSAMPLE, (1, 64, 64), direction=direction, precision="highest")
    with vk.use_backend("cpu"):
        named = workloads.algorithm(row, row.inputs(torch.Generator()))
    folded = "winograd F(2x2, 3x3), upsampling folded"
    assert named == ("winograd F(2x2, 2x2)" if direction == "input gradient" else folded)


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    rows = [tiny(), tiny(direction="input gradient")]
    suite = replace(SUITES["conv"], works=lambda only: rows)
    monkeypatch.setitem(SUITES, "conv", suite)
    return rows


def test_the_command_prints_and_records(two_rows: list[Workload], tmp_path: Path) -> None:
    path = tmp_path / "conv.json"
    result = CliRunner().invoke(
        app, ["bench", "conv", "--seconds", "0.001", "--only", "odd", "--json", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert "2 x 8->5 x 9px" in result.output
    assert "goals" in result.output
    record = json.loads(path.read_text())
    assert record["settings"]["only"] == ["odd"]
    assert [row["direction"] for row in record["rows"]] == ["forward", "input gradient"]
    (goal,) = record["goals"]
    assert goal["group"] == "odd"
    assert goal["goal"] == 1.0
    assert goal["met"] == (goal["measured"] >= 1.0)


def test_a_wrong_row_is_an_error_of_the_command(two_rows: list[Workload], tmp_path: Path) -> None:
    good = two_rows[1]
    two_rows[1] = replace(good, ours=lambda t: lambda: good.ours(t)() * 2)
    path = tmp_path / "conv.json"
    result = CliRunner().invoke(app, ["bench", "conv", "--seconds", "0.001", "--json", str(path)])
    assert result.exit_code == 1
    assert "against float64" in result.output
    assert json.loads(path.read_text())["rows"][1]["ratio"] is None


def test_an_interrupted_run_prints_what_it_has(two_rows: list[Workload], tmp_path: Path) -> None:
    def interrupted(inputs: Any) -> Any:
        raise KeyboardInterrupt

    two_rows[1] = replace(two_rows[1], ours=interrupted)
    path = tmp_path / "conv.json"
    result = CliRunner().invoke(app, ["bench", "conv", "--seconds", "0.001", "--json", str(path)])
    assert result.exit_code == 130
    assert "2 x 8->5 x 9px" in result.stdout
    assert "interrupted after 1 of 2 rows; no record was written" in result.stderr
    assert not path.exists()


def test_list_measures_nothing() -> None:
    result = CliRunner().invoke(app, ["bench", "conv", "--list", "--only", "upsample"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "upsample: upsample_conv3x3, 1 x 512 x 32px, forward"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "conv9"], "--only must be one of conv3x3, "),
        (["--dtype", "bfloat16"], "--dtype is of bench latent"),
        (["--device", "cuda"], "--device is of bench latent"),
    ],
)
def test_bad_options_end_with_two(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "conv", *options])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("layout", workloads.LAYOUTS)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_group_norm(direction: str, layout: Any) -> None:
    row = measure(conv.group_norm("odd", (2, 8, 5, 5), layout, direction), seconds=0.0)
    assert row["error"] <= row["promise"] < 1e-5
    assert row["layout"] == layout


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
@pytest.mark.parametrize("wanted", ["x", "weight"])
@pytest.mark.parametrize("op", [CONV3X3, DOWNSAMPLE4X4, TRANSPOSE4X4], ids=lambda op: op.op)
def test_gradients_are_those_of_our_backward(op: Any, wanted: str) -> None:
    """The op is called by its schema, for one gradient, on fake tensors."""
    inputs = inputs_of(op.cases, ConvShape(2, 8, 5, 9, 9), torch.Generator(), grads=True)
    with FakeTensorMode() as mode, vk.use_backend("cpu"):
        fakes = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        gradient = op.our_gradient(wanted, "high", fakes)()
    assert gradient.shape == inputs[wanted].shape
