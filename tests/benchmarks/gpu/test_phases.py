"""The phases on CPU at tiny sizes: their results are right, and wrong ones are not timed."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import alternatives, autoencoder, exercise, kernels, targets, works
from benchmarks.gpu.phase import Context, Row
from benchmarks.gpu.phases import compiled, correctness, end_to_end, sanitizer
from vaekernels.backends import extension
from vaekernels.bench.accuracy import compare, compare_models, distance
from vaekernels.bench.op_inputs import LATENT, run

needs_extension = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread; settings that a phase makes for its own process are restored."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(phase: str) -> list[Row]:
    module = importlib.import_module(f"benchmarks.gpu.phases.{phase}")
    found = list(module.run(Context("cpu", 600.0)))
    for row in found:
        assert not {"failed", "skipped"} & row.keys(), row
        assert row.get("ok", True), row
    return found


def test_ops() -> None:
    found = rows("ops")
    assert [row["name"] for row in found] == [one.name for one in works.works(tiny=True)]
    for row in found:
        assert ("ours" in row["ms"]) == (row.get("backend") is not None)
        if "ours" in row["ms"]:
            assert row["error"] < 1e-5
    names = {one.name for one in works.works(tiny=False)}
    assert len(names) == len(works.works(tiny=False))


def test_the_groups_of_the_targets_are_measured() -> None:
    measured = {(one.group, one.direction) for one in works.works(tiny=False)}
    for group, direction in (
        ("conv", "forward"),
        ("upsample", "forward"),
        ("group_norm b1", "forward"),
        ("group_norm b8", "forward"),
        ("group_norm b8", "backward"),
        ("rsample_kl large", "forward"),
        ("rsample_kl large", "backward"),
        ("rsample_kl sd", "forward+backward"),
        ("elbo", "forward+backward"),
    ):
        assert (group, direction) in measured
        row = {"group": group, "direction": direction, "gbps": 1.0, "name": "row", "ok": True}
        times = {"ms": {"eager_nchw": 2.0, "ours": 1.0}}
        copy = {"status": "done", "rows": [{"name": "copy", "gbps": 0.5}]}
        phases = {"environment": copy, "ops": {"status": "done", "rows": [row | times]}}
        assert any(goal["measured"] == 2.0 for goal in targets.judge({"phases": phases}))


def test_end_to_end_and_its_parts() -> None:
    found = rows("end_to_end")
    sides = {"eager_nchw", "eager_channels_last", "ours", "accelerated"}
    assert sides == found[0]["ms"].keys()
    assert found[0]["accelerated"]["ok"]
    names = {part.name for part in end_to_end.PARTS}
    for name in ("decode 512 b1", "decode 512 b8", "decode 1024 b1", "encode 256 b8"):
        assert name in names


def test_launches() -> None:
    found = {row["name"]: row for row in rows("launches")}
    latent = found["rsample_kl, 16 x 16, forward+backward"]
    assert latent["ms"].keys() | latent["refused_by"].keys() == {"eager", "cpu"}
    assert found.keys() >= {"group_norm_silu, 1 x 32 x 4 x 4, forward"}
    assert len(found) == 8


def test_training() -> None:
    steps = rows("training")
    assert [row["name"] for row in steps] == ["conv_vae 64 b64", "autoencoder_kl 256 b8"]
    for row in steps:
        assert row["peak_bytes"].keys() == row["ms"].keys() >= {"eager_nchw", "ours"}


def test_census() -> None:
    found = {row["name"].split()[0].strip(","): row for row in rows("census")}
    assert {"cudnn", "upsample", "attention", "group", "tiles"} == found.keys()
    assert found["cudnn"]["ms"].keys() == {"fprop", "dgrad", "wgrad"}
    assert max(found["upsample"]["error"].values()) < 1e-6
    assert found["upsample"]["error"].keys() == {"interpolate", "transposed", "phases"}
    assert max(found["attention"]["error"].values()) < 1e-5
    assert {"sdpa", "chunks_512"} <= found["attention"]["error"].keys()


def test_warm_up() -> None:
    found = {row["name"]: row for row in rows("warm_up")}
    assert found["first call"]["seconds"] > 0
    assert found["all kernels"]["errors"] == []


def sanitized(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows of the phase with a shell script in place of compute-sanitizer."""
    tool = folder / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\nshift 6\n{does}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = list(sanitizer.run(Context("cpu", 600.0)))
    assert [row["name"] for row in found] == ["memcheck, cpu", "racecheck, cpu"]
    return found


@needs_extension
def test_sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in sanitized('"$@"', tmp_path, monkeypatch):
        assert row["ok"]
        assert row["cases"] > 10


def test_what_a_sanitizer_reports_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in sanitized("echo case: conv; echo a race; exit 97", tmp_path, monkeypatch):
        assert not row["ok"]
        assert row["report"] == ["case: conv", "a race"]


def test_a_sanitizer_that_does_not_run_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in sanitized("echo no device; exit 1", tmp_path, monkeypatch):
        assert "ended with 1: no device" in row["failed"]


def test_without_a_sanitizer_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "not on PATH" in next(sanitizer.run(Context("cpu", 600.0)))["refused"]


@needs_extension
def test_correctness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercise, "DTYPES", (torch.float32,))
    monkeypatch.setattr(exercise, "LATENT", {"rsample_kl": LATENT["rsample_kl"]})
    small = {"odd": exercise._CONV_SHAPES["odd"]}
    monkeypatch.setattr(exercise, "_CONV_SHAPES", small)
    monkeypatch.setattr(exercise, "_RESNET_SHAPES", small)
    monkeypatch.setattr(exercise, "_NORM_SHAPES", {"small": exercise._NORM_SHAPES["small"]})
    found = rows("correctness")
    assert found[0] == {"name": "noise, cpu", "digest": correctness.NOISE_DIGEST, "ok": True}
    assert len(found) == 1 + 1 + 5 + 1 + 1
    assert all(row["repeatable"] for row in found[1:])
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_backend_that_refuses_is_named() -> None:
    found = {one.name: one for one in exercise.cases_of("cuda")}
    assert isinstance(found["rsample_kl, triton, bfloat16"], exercise.Case)
    cuda = found["rsample_kl, cuda, bfloat16"]
    if not torch.cuda.is_available():
        assert isinstance(cuda, exercise.Refused)
        assert cuda.refused.startswith("cuda: built without") or "no CUDA device" in cuda.refused
    backend, why = kernels.fused_backend("conv3x3", "cpu", torch.float64)
    assert backend is None
    assert "cpu: conv3x3 has no kernels for torch.float64" in why


class _Case:
    """An op on one backend, as correctness checks it, with a wrong result."""

    def __init__(self, spoil: float, changes: bool) -> None:
        self.spoil, self.changes, self.calls = spoil, changes, 0
        self.case = exercise.Case(
            "wrong", LATENT["gaussian_kl"], {"one": (3, 5)}, "spoiled", torch.float32
        )

    def run(self, case: exercise.Case, inputs: Sequence[Tensor], grads: Any = None) -> object:
        outputs, used, gradients = run(case.cases, inputs, "reference", grads)
        self.calls += 1
        outputs[0] = outputs[0] * (1 + self.spoil)
        if self.changes and self.calls == 2:
            outputs[0] = outputs[0] * (1 + 1.3e-7)
        return outputs, used, gradients


@pytest.mark.parametrize(
    ("spoil", "changes", "ok", "repeatable"),
    [(0.0, False, True, True), (1e-3, False, False, True), (float("nan"), False, False, False),
     (0.0, True, False, False)],
)  # fmt: skip
def test_correctness_finds(
    monkeypatch: pytest.MonkeyPatch, spoil: float, changes: bool, ok: bool, repeatable: bool
) -> None:
    wrong = _Case(spoil, changes)
    monkeypatch.setattr(exercise, "run", wrong.run)
    row = correctness.check(wrong.case, "cpu")
    assert (row["ok"], row["repeatable"]) == (ok, repeatable)


def test_a_wrong_result_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    one = works.latent("gaussian_kl", "any", (4, 16), "forward")
    right = works.measure(one, 0.0)
    wrong = works.measure(replace(one, ours=functools.partial(_spoiled, one.ours)), 0.0)
    if "backend" in right:
        assert right["ok"]
        assert "ours" in right["ms"]
        assert not wrong["ok"]
    assert wrong["ms"].keys() == {"eager"}


def _spoiled(ours: object, inputs: object, *, backend: str) -> object:
    call = ours(inputs, backend=backend)  # type: ignore[operator]
    return lambda: call() * 1.01


def test_a_wrong_model_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    contest = end_to_end.Contest(Context("cpu", 60.0))
    ours = autoencoder.Part.ours
    monkeypatch.setattr(
        autoencoder.Part, "ours", lambda part, model: lambda x: 1.01 * ours(part, model)(x)
    )
    row = contest.measure(autoencoder.decode(32, 1), 0.0)
    assert not row["ok"]
    assert row["ms"].keys() == {"eager_nchw", "eager_channels_last", "accelerated"}
    assert row["accelerated"]["ok"]


def test_a_wrong_accelerated_model_has_no_time() -> None:
    contest = end_to_end.Contest(Context("cpu", 60.0))
    with torch.no_grad():
        contest.accelerated.decoder.conv_in.weight.mul_(1.01)
    row = contest.measure(autoencoder.decode(32, 1), 0.0)
    assert row["ok"]
    assert not row["accelerated"]["ok"]
    assert row["ms"].keys() == {"eager_nchw", "eager_channels_last", "ours"}


def test_compiled_measures_ours_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, mode="default": function)
    row = compiled.decoding(Context("cpu", 60.0), 0.0)
    assert row["ms"].keys() == {"compile", "ours", "accelerated"}
    row = compiled.training(Context("cpu", 60.0), 0.0)
    assert row["ms"].keys() == {"compile", "ours"}


def test_verdicts() -> None:
    exact = torch.linspace(-1, 1, 9, dtype=torch.float64)
    eager = exact.float()
    assert compare([eager], [eager], [exact], (9,)).ok
    assert not compare([eager * 1.001], [eager], [exact], (9,)).ok
    assert not compare([eager * float("nan")], [eager], [exact], (9,)).ok
    assert compare([eager * 1.001], [eager], [exact], (9,), 0.01).ok
    with pytest.raises(ValueError, match=r"expected shape \(9,\), got \(8,\)"):
        compare([eager[1:]], [eager], [exact], (9,))
    assert distance([exact, 2 * exact], [exact, exact]) == pytest.approx(0.5**0.5)
    assert not compare_models([eager * float("nan")], [eager], [exact]).ok


def test_poisoned_memory_is_nan() -> None:
    with correctness.poisoned_memory():
        assert torch.empty(4).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("size", (1, 4, 5))
def test_forms_of_upsampling(size: int) -> None:
    x, weight = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, size, 6), (5, 3, 3, 3)))
    expected = alternatives.upsample_interpolate(x, weight)
    transposed = alternatives.upsample_transposed(x, alternatives.merged_transposed(weight))
    phases = alternatives.upsample_phases(x, alternatives.merged_phases(weight))
    torch.testing.assert_close(transposed, expected)
    torch.testing.assert_close(phases, expected)
