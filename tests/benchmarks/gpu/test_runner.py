"""The suite's own logic: phases, deadlines, and the record of a phase that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import command, record
from benchmarks.gpu.phase import Context, Phase, Row, shares
from benchmarks.gpu.phases import PHASES
from benchmarks.gpu.runner import run

SCRIPT = record.ROOT / "benchmarks" / "gpu_suite.py"


def fake(name: str, *, seconds: float = 60, least: float = 1, **options: Any) -> Phase:
    module = f"{__package__}.fake_phases.{name.partition('-')[0]}"
    options = {"priority": 1, **options}
    return Phase(name, f"does {name}", seconds, least, module=module, **options)


def run_fakes(out: Path, *phases: Phase, budget: float = 300, **options: Any) -> Row:
    found: Row = {"phases": {}, "goals": []}
    options = {"judge": lambda found: [], "say": lambda text: None, **options}
    return run(phases, found, device="cpu", budget=budget, out=out, **options)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_record_is_rewritten_after_each_phase(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "record.json"
    counts: list[int] = []

    def judge(found: Row) -> list[Row]:
        counts.append(len(found["phases"]))
        return [{"of": len(found["phases"])}]

    run_fakes(out, fake("rows-1"), fake("rows-2"), judge=judge)
    found = record.read(out)
    assert list(found["phases"]) == ["rows-1", "rows-2"]
    assert found["phases"]["rows-2"]["status"] == record.DONE
    assert found["phases"]["rows-2"]["rows"][0]["before"] == ["rows-1"]
    assert found["phases"]["rows-2"]["rows"][0]["nan"] == "nan"
    assert counts == [1, 2]
    assert found["goals"] == [{"of": 2}]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_phase_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    found = run_fakes(tmp_path / "r.json", fake("hang", seconds=10), fake("rows"))
    assert time.monotonic() - began < 120
    hung = found["phases"]["hang"]
    assert hung["status"] == record.TIMED_OUT
    assert hung["exit_code"] is None
    assert "it hangs here" in hung["stderr_tail"]
    (row,) = hung["rows"]
    deadline = time.monotonic() + 10
    while alive(row["child"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(row["child"])
    assert found["phases"]["rows"]["status"] == record.DONE


def test_a_phase_that_crashes_costs_no_other(tmp_path: Path) -> None:
    found = run_fakes(tmp_path / "r.json", fake("crash"), fake("error"), fake("rows"))
    crash, error, rows = found["phases"].values()
    assert (crash["status"], crash["exit_code"]) == (record.FAILED, -11)
    assert "illegal memory access" in crash["stderr_tail"]
    assert crash["rows"] == [{"name": "before"}]
    assert (error["status"], error["exit_code"], error["rows"]) == (record.FAILED, 1, [])
    assert "RuntimeError: no device" in error["stderr_tail"]
    assert rows["status"] == record.DONE
    assert not command.successful(found)
    assert command.successful({"phases": {"rows": rows}})


def test_a_work_that_fails_costs_no_other(tmp_path: Path) -> None:
    found = run_fakes(tmp_path / "r.json", fake("wrong"))
    entry = found["phases"]["wrong"]
    assert entry["status"] == record.DONE
    bad, good = entry["rows"]
    assert bad == {"name": "bad", "failed": "ArithmeticError: it was here"}
    assert good == {"name": "good"}
    assert "in _measure" in entry["stderr_tail"]
    assert not command.successful(found)


def test_what_one_phase_leaves_goes_to_the_next(tmp_path: Path) -> None:
    phases = fake("rows-1", seconds=60, priority=1), fake("rows-2", seconds=90, priority=2)
    found = run_fakes(tmp_path / "r.json", *phases, budget=100)
    assert found["phases"]["rows-1"]["allowed_s"] == pytest.approx(60)
    # 40 at the beginning; and what the first did not need.
    assert 60 < found["phases"]["rows-2"]["allowed_s"] <= 90


def test_a_phase_without_time_is_recorded(tmp_path: Path) -> None:
    phases = fake("rows", seconds=20), fake("hang", seconds=500, least=400, priority=2)
    found = run_fakes(tmp_path / "r.json", *phases, budget=100)
    assert found["phases"]["hang"] == {"status": record.NO_TIME, "rows": []}
    assert command.successful(found)


@pytest.mark.parametrize("budget", (3, 60, 130, 300, command.BUDGET, 2000))
def test_shares(budget: float) -> None:
    given = shares(PHASES, budget)
    assert sum(given.values()) <= budget
    for phase in PHASES:
        if phase.name in given:
            assert phase.least <= given[phase.name] <= phase.seconds
    ranks = [phase.priority for phase in PHASES if given.get(phase.name, 0.0) < phase.seconds]
    if ranks:  # what comes before the first that is cut has all that it wants
        assert all(
            given[phase.name] == phase.seconds for phase in PHASES if phase.priority < min(ranks)
        )
    if budget == 2000:
        assert given == {phase.name: phase.seconds for phase in PHASES}


def test_the_default_run_is_under_nine_minutes() -> None:
    default = command.choose(PHASES, None)
    assert "max_autotune" not in [phase.name for phase in default]
    assert command.BUDGET < 9 * 60
    given = shares(default, command.BUDGET)
    assert set(given) == {phase.name for phase in default}
    for phase in default:
        __import__(phase.module)


def test_only() -> None:
    chosen = command.choose(PHASES, "table, ops,environment")
    assert [phase.name for phase in chosen] == ["environment", "ops", "table"]
    with pytest.raises(ValueError, match=r"--only: expected some of environment, .*; got 'opps'"):
        command.choose(PHASES, "opps")


def test_each_leaves_out_what_has_no_time_and_goes_on_after_an_error() -> None:
    def measure(work: str, seconds: float) -> Row:
        if work == "bad":
            raise ValueError("no\nsuch  kernel")
        return {"seconds": seconds}

    context = Context("cuda-like", 100.0)
    assert not context.tiny
    first, bad, last = context.each(["first", "bad", "last"], str, measure, most=2.0)
    assert first == {"name": "first", "seconds": 2.0}
    assert bad == {"name": "bad", "failed": "ValueError: no such kernel"}
    assert last["name"] == "last"
    (late,) = Context("cpu", 0.5).each(["late"], str, measure)
    assert late == {"name": "late", "skipped": "no time was left"}


def script(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        env={**environment, **options},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_list_needs_neither_an_installation_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    found = script("--list", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert found.returncode == 0, found.stderr
    names = [line.split()[0] for line in found.stdout.splitlines()]
    assert names == [phase.name for phase in PHASES]
    assert "only by name" in found.stdout


def test_a_run_on_cpu(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ("--device", "cpu", "--only", "environment,table", "--commit", "abc")
    found = script(*arguments, "--out", str(out), "--budget", "400", cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    recorded = json.loads(out.read_text())
    assert {entry["status"] for entry in recorded["phases"].values()} == {record.DONE}
    assert recorded["commit"] == "abc"
    machine, copy, *_ = recorded["phases"]["environment"]["rows"]
    assert machine["torch"]
    assert copy["gbps"] > 0
    assert "0 met, 0 not met" in found.stdout
    again = script("--device", "cpu", "--only", "table", "--out", str(out), cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 met, 0 not met" in again.stdout
    assert "environment" in json.loads(out.read_text())["phases"]


def test_errors_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["--only", "nothing"]) == 2
    assert command.main(["--device", "cpu"]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main([]) == 2
    missing = str(tmp_path / "none.json")
    assert command.main(["--only", "table", "--out", missing]) == 2
    errors = capsys.readouterr().err
    for expected in ("got 'nothing'", "give --out too", "nvidia-smi names no GPU", "none.json"):
        assert expected in errors


def test_the_record_of_a_gpu_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X100 80GB HBM3'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = record.ROOT / "benchmarks" / "results" / "nvidia-x100-80gb-hbm3"
    assert command.default_path("cuda") == folder / "gpu_suite.json"
    # Phases that are run alone do not replace what a whole run found.
    some = command.choose(PHASES, "sanitizer,table")
    assert command.default_path("cuda", some) == folder / "gpu_suite_sanitizer.json"
    assert command.default_path("cuda", some[1:]) == folder / "gpu_suite.json"
