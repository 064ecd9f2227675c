"""``vaekernels tune`` without a GPU: what it measures, how, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import vaekernels as vk
from vaekernels.runtime import conv_autotune
from vaekernels.runtime.conv_autotune import Shape

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]

SMALL = Shape("conv3x3", 1, 16, 16, 4, 4, "float16", norm=True, statistics=True)


@pytest.fixture
def arranged() -> Callable[[int], conv_autotune.Timer]:
    """A clock by which the candidate of this number is the fastest; it runs the first."""

    def timer(fastest: int) -> conv_autotune.Timer:
        def times(candidates: Sequence[Callable[[], object]]) -> list[float]:
            candidates[0]()
            return [0.001 if number == fastest else 0.002 for number in range(len(candidates))]

        return times

    return timer


def test_shapes_of_a_model() -> None:
    found = conv_autotune.model_shapes("sd1", 64, 2, "bfloat16")
    assert len(found) == len(set(found))
    first, last = found[0], found[-1]
    assert first == Shape("conv3x3", 2, 3, 128, 64, 64, statistics=True)
    assert last == Shape("conv3x3", 2, 128, 3, 64, 64, norm=True)
    assert Shape("upsample_conv3x3", 2, 256, 256, 32, 32, statistics=True) in found
    down = Shape("downsample_conv3x3", 2, 128, 128, 64, 64, statistics=True, padding="asymmetric")
    assert down in found
    second = Shape("conv3x3", 2, 256, 256, 32, 32, norm=True, residual=True, statistics=True)
    assert second in found
    narrower = replace(second, outputs=128, inputs=128, projection=256, height=64, width=64)
    assert narrower in found
    # Before attention nothing is handed on.
    assert Shape("conv3x3", 2, 512, 512, 8, 8, norm=True, residual=True) in found


def test_keys_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key that a model looks up in inference was measured."""
    from vaekernels.backends.triton.conv import forward_backward as call
    from vaekernels.models import AutoencoderKL, AutoencoderKLConfig

    config = AutoencoderKLConfig(
        block_out_channels=(8, 12),
        norm_num_groups=4,
        latent_channels=2,
        mid_block_add_attention=False,
    )
    monkeypatch.setattr(AutoencoderKLConfig, "preset", lambda name: config)
    shapes = conv_autotune.model_shapes("sd1", 4, 1, "float32")
    known = {job.key for job in conv_autotune.jobs(shapes, False, "cpu")}
    asked = []
    choose = call.choose
    monkeypatch.setattr(call, "choose", lambda key: (asked.append(key), choose(key))[1])
    model = AutoencoderKL(config).eval()
    with torch.no_grad(), vk.use_backend("triton"):
        model.encode(torch.zeros(1, 3, 4, 4))
        model.decode(torch.zeros(1, 2, 2, 2))
    assert set(asked) == known


def test_every_candidate_is_run_and_the_fastest_is_kept(arranged: Any) -> None:
    (job,) = conv_autotune.jobs([SMALL], False, "cpu")
    algorithms = conv_autotune.candidates(job)
    assert algorithms[0].algorithm == "cudnn"
    assert {algorithm.tile.columns for algorithm in algorithms[1:]} == {16, 32}
    for number, algorithm in enumerate(algorithms):
        with torch.no_grad():
            entry = conv_autotune.measure(job, "cpu", arranged(number))
        assert (entry.algorithm, entry.tile) == (algorithm.algorithm, algorithm.tile)
        assert len(entry.milliseconds) == len(algorithms)
        assert sorted(entry.milliseconds.values())[:2] == [1.0, 2.0]


def test_float32_has_two_tiers(arranged: Any) -> None:
    """One multiplies tf32, where cuDNN is a candidate beside the tiles."""
    shapes = [replace(SMALL, dtype=dtype, outputs=128) for dtype in ("tf32", "float32")]
    jobs = conv_autotune.jobs(shapes, True, "cpu")
    assert len(jobs) == 2 * len(conv_autotune.jobs(shapes[:1], True, "cpu"))
    for job in jobs:
        assert job.key.dtype == job.shape.dtype
        call = job.shape.call("cpu")
        assert call.x.dtype == torch.float32
        assert call.precision == ("medium" if job.shape.dtype == "tf32" else "high")
        algorithms = conv_autotune.candidates(job)
        assert ("cudnn" in {algorithm.algorithm for algorithm in algorithms}) == (
            job.shape.dtype == "tf32"
        )
    first = jobs[0]
    assert max(algorithm.tile.columns for algorithm in conv_autotune.candidates(first)[1:]) == 128
    with torch.no_grad():
        assert conv_autotune.measure(first, "cpu", arranged(0)).algorithm == "cudnn"


def test_gradients(arranged: Any) -> None:
    found = conv_autotune.jobs([SMALL], True, "cpu")
    assert [(job.direction, job.key.epilogue) for job in found] == [
        ("forward", "norm+statistics"),
        ("forward", "norm"),
        ("input", ""),
        ("weight", "norm"),
    ]
    for job in found[2:]:
        entry = conv_autotune.measure(job, "cpu", arranged(1))
        assert entry.algorithm == "tap_gemm"
        assert type(entry.tile).__name__ == ("GradientTile" if "weight" in str(job) else "Tile")


def test_a_candidate_that_does_not_launch_is_left_out(
    arranged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaekernels.backends.triton.conv import forward_backward as call

    def refuse(*arguments: Any) -> None:
        raise RuntimeError("out of resource: shared memory")

    (job,) = conv_autotune.jobs([SMALL], False, "cpu")
    monkeypatch.setattr(call, "convolve", refuse)
    assert list(conv_autotune.measure(job, "cpu", arranged(0)).milliseconds) == ["cudnn"]
    monkeypatch.setattr(call.cudnn, "forward", refuse)
    with pytest.raises(
        RuntimeError, match=r"tune: conv3x3 forward .*: no algorithm runs: .*out of reso"
    ):
        conv_autotune.measure(job, "cpu", arranged(0))


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    from vaekernels.backends.triton.conv import autotune_table

    path, measured = tmp_path / "new" / "mine.json", []
    wanted = conv_autotune.jobs([SMALL], True, "cpu")

    def measure(job: conv_autotune.Job) -> autotune_table.Entry:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(job)
        return autotune_table.Entry("cudnn")

    with pytest.raises(KeyboardInterrupt):
        conv_autotune.tune(wanted, path, measure)
    # Entries of the interpreter have no architecture, which a table must have.
    plain = json.loads(path.read_text())["entries"]
    assert [entry["direction"] for entry in plain] == ["forward", "forward"]
    assert not list(path.parent.glob("*.tmp"))


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    from vaekernels.backends.triton.conv import autotune_table

    path, measured = tmp_path / "mine.json", []
    wanted = [
        replace(job, key=replace(job.key, architecture=90))
        for job in conv_autotune.jobs([SMALL], True, "cpu")
    ]

    def measure(job: conv_autotune.Job) -> autotune_table.Entry:
        measured.append(job)
        return autotune_table.Entry("cudnn")

    conv_autotune.tune(wanted[:1], path, measure)
    entries = conv_autotune.tune(wanted, path, measure)
    assert measured == wanted
    assert autotune_table.read(path) == entries
    conv_autotune.tune(wanted, path, measure, again=True)
    assert measured == wanted + wanted


def test_files_of_shapes(tmp_path: Path) -> None:
    path = tmp_path / "shapes.json"
    one = {"op": "conv3x3", "batch": 1, "inputs": 3, "outputs": 8, "height": 4, "width": 4}
    path.write_text(json.dumps([one]))
    assert conv_autotune.read_shapes(path) == [Shape("conv3x3", 1, 3, 8, 4, 4)]
    for change, message in (
        ({"op": "conv5x5"}, "op must be one of conv3x3.*got 'conv5x5'"),
        ({"batch": 0}, "batch must be a positive integer; got 0"),
        ({"dtype": "float64"}, "dtype must be one of bfloat16"),
        ({"projection": 3}, "projection 3 must come with a residual"),
        ({"padding": "symmetric"}, "padding of conv3x3 must be"),
        ({"channels": 3}, "channels"),
    ):
        path.write_text(json.dumps([{**one, **change}]))
        with pytest.raises(ValueError, match=rf"{path}: not a list of shapes.*{message}"):
            conv_autotune.read_shapes(path)
