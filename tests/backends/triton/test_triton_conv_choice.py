"""Which algorithm computes a convolution: the table, the rule; and cuDNN's wrapper itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vaekernels as vk
from tests.ops import convs
from tests.ops.convs import Conv
from vaekernels.runtime.explain import ConvAlgorithm

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]

CALLS = [
    Conv("conv3x3", (2, 6, 20, 5, 4), "leaky_relu", residual=True, groups=2),
    Conv("upsample_conv3x3", (2, 20, 3, 3, 4), "relu"),
    Conv("conv_transpose4x4", (2, 3, 18, 4, 3), layout="channels_last"),
    Conv("downsample_conv4x4", (2, 5, 17, 7, 4), "leaky_relu", layout="strided_halves"),
    Conv("downsample_conv3x3", (2, 4, 3, 7, 8), "silu", padding="asymmetric", bias=False),
    Conv("downsample_conv3x3", (2, 3, 4, 6, 7), padding="symmetric", layout="transposed"),
]


@pytest.fixture
def by_library() -> Iterator[None]:
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    with force_algorithm("cudnn"):
        yield


@pytest.mark.usefixtures("by_library")
@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16), ids=str)
@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_the_library(conv: Conv, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results are right, in all directions, and no kernel of ours multiplied."""
    from vaekernels.backends.triton.conv import forward_backward

    monkeypatch.delattr(forward_backward, "convolve")
    monkeypatch.delattr(forward_backward, "filter_gradient")
    convs.check(conv, "triton", dtype, ("medium",), roundings=1)


@pytest.mark.parametrize("algorithm", ("cudnn", "tap_gemm"))
def test_backward_goes_the_way_of_its_forward(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread of its own, as on a GPU; and nobody else's calls do."""
    from vaekernels.backends.triton.conv import cudnn as library
    from vaekernels.backends.triton.conv import dispatch

    calls: list[str] = []
    gradients = library.gradients
    monkeypatch.setattr(
        library, "gradients", lambda *given: calls.append("cudnn") or gradients(*given)
    )
    x, weight = torch.randn(1, 4, 4, 4), torch.randn(4, 4, 3, 3, requires_grad=True)
    with dispatch.force_algorithm(algorithm):
        y = vk.conv3x3(x, weight, precision="medium", backend="triton")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(dispatch._forced.get).result() is None
    with ThreadPoolExecutor(1) as pool:
        pool.submit(torch.autograd.grad, y.sum(), weight).result()
    assert calls == (["cudnn"] if algorithm == "cudnn" else [])


def test_threads_leave_the_settings_as_they_were() -> None:
    """And no op but the gradient of filters changes them, for one thread at a time."""
    from vaekernels.backends.triton.conv import cudnn as library
    from vaekernels.backends.triton.conv.forms import SAME

    cudnn = torch.backends.cudnn
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3)
    meet = threading.Barrier(2)

    def settings() -> tuple[bool, bool]:
        meet.wait()
        with library._repeatable():
            assert cudnn.deterministic
            assert not cudnn.benchmark
            library.forward(SAME, x, weight, (4, 4))  # does not wait for the lock
            library.gradients(SAME, x, x, weight, (True, False))
        meet.wait()
        return cudnn.deterministic, cudnn.benchmark

    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            both = [pool.submit(settings) for _ in range(2)]
            assert [future.result() for future in both] == [(False, False)] * 2


# In a process of its own: what PyTorch starts with cannot be set again.
TF32_SETTINGS = """
import torch
from vaekernels.backends.triton.conv import cudnn as library
from vaekernels.backends.triton.conv.forms import SAME

backends, cudnn = torch.backends, torch.backends.cudnn

def found():
    settings = [each.fp32_precision for each in (backends, cudnn, cudnn.conv, cudnn.rnn)]
    try:
        return settings, cudnn.allow_tf32
    except RuntimeError:
        return settings, "the two kinds differ"

def check():
    before = found()
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3)
    y = library.forward(SAME, x, weight, (4, 4))
    library.gradients(SAME, y, x, weight, (True, True))
    assert found() == before, (before, found())

check()
backends.fp32_precision = "ieee"
assert cudnn.conv.fp32_precision == "ieee", "the default no longer follows"
check()
backends.fp32_precision = "none"
cudnn.allow_tf32 = False
check()
cudnn.rnn.fp32_precision = "tf32"
assert found()[1] == "the two kinds differ"
check()
cudnn.allow_tf32 = True
check()
cudnn.conv.fp32_precision = "ieee"
assert found()[1] == "the two kinds differ"
check()
"""


def test_the_library_leaves_the_settings_of_tf32_alone() -> None:
    """Whatever was set, by PyTorch's older setting, its newer ones or both, is so again."""
    command = [sys.executable, "-W", "ignore", "-c", TF32_SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def key(direction: str = "forward", **fields: object):
    from vaekernels.backends.triton.conv.autotune_table import Key

    known = Key(0, "conv3x3", direction, "float16", 6, 20, 64)
    return replace(known, **fields)


def test_each_direction_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.conv import autotune_table, dispatch
    from vaekernels.backends.triton.conv.tile_heuristics import GradientTile, Tile

    entries = {
        key(epilogue="norm+residual"): autotune_table.Entry("tap_gemm", Tile(32, 16, 64, 4, 2)),
        key("input"): autotune_table.Entry("cudnn"),
        key("weight", epilogue="norm"): autotune_table.Entry(
            "tap_gemm", GradientTile(64, 32, 16, 4, 3)
        ),
    }
    found = {
        each: autotune_table.Found(entry, Path("mine.json")) for each, entry in entries.items()
    }
    monkeypatch.setattr(dispatch, "measured", lambda: found)
    conv = CALLS[0]
    tensors = {name: t.half() for name, t in conv.tensors().items()}
    explained = vk.explain(
        *("conv3x3", tensors["x"], tensors["weight"], tensors["bias"]),
        norm=vk.NormPrologue(tensors["norm_weight"], tensors["norm_bias"], 2),
        residual=tensors["residual"],
        backend="triton",
    )
    assert explained.forward == ConvAlgorithm(
        "tap-GEMM 32x16x64", "table: the fastest on sm_0, mine.json"
    )
    assert explained.x_gradient is not None
    assert explained.x_gradient.name == "cudnn"
    assert explained.weight_gradient is not None
    assert explained.weight_gradient.name == "tap-GEMM 32x16x64"
    convs.check(conv, "triton", torch.float16, ("high",))
    # A pixel more, and the table is silent.
    silent = vk.explain("conv3x3", tensors["x"], tensors["weight"], backend="triton")
    assert silent.forward is not None
    assert silent.forward.reason.startswith("rule")


def test_each_tier_of_float32_is_looked_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.conv import autotune_table, dispatch
    from vaekernels.backends.triton.conv.tile_heuristics import Tile

    entries = {
        key(dtype="float32"): autotune_table.Entry("tap_gemm", Tile(32, 16, 16, 4, 2)),
        key(dtype="tf32"): autotune_table.Entry("tap_gemm", Tile(64, 32, 16, 4, 2)),
        key("input", dtype="tf32"): autotune_table.Entry("cudnn"),
    }
    found = {
        each: autotune_table.Found(entry, Path("mine.json")) for each, entry in entries.items()
    }
    monkeypatch.setattr(dispatch, "measured", lambda: found)
    x, weight = torch.zeros(1, 6, 8, 8), torch.zeros(20, 6, 3, 3)
    for precision, forward, x_gradient in (
        ("medium", "tap-GEMM 64x32x16 tf32", "cudnn tf32"),
        ("high", "tap-GEMM 32x16x16", "tap-GEMM 64x16x32"),
        ("highest", "tap-GEMM 32x16x16", "tap-GEMM 64x16x32"),
    ):
        algorithms = vk.explain("conv3x3", x, weight, precision=precision, backend="triton")
        assert algorithms.forward is not None
        assert algorithms.x_gradient is not None
        assert (algorithms.forward.name, algorithms.x_gradient.name) == (forward, x_gradient), (
            precision
        )
    # In 16 bits a tier changes nothing.
    half = x.half(), weight.half()
    first, *others = (
        vk.explain("conv3x3", *half, precision=precision, backend="triton")
        for precision in convs.GPU_PRECISIONS
    )
    assert all(other == first for other in others)


@pytest.mark.parametrize("precision", ("medium", "high"))
def test_tiles_of_the_explanation_are_those_that_run(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaekernels.backends.triton.conv import launch

    asked = []
    tile_of, gradient_tile_of = launch.tile_of, launch.gradient_tile_of

    def product(*arguments):
        asked.append(tile_of(*arguments))
        return asked[-1]

    def gradient(*arguments):
        asked.append(gradient_tile_of(*arguments))
        return asked[-1]

    monkeypatch.setattr(launch, "tile_of", product)
    monkeypatch.setattr(launch, "gradient_tile_of", gradient)
    monkeypatch.setattr(launch, "_multiprocessors", lambda like: 4)
    for conv in convs.every_op((2, 20, 40, 9, 8)):
        tensors = conv.tensors()
        options = {name: tensors[name] for name in ("residual",) if name in tensors}
        if conv.padding is not None:
            options["padding"] = conv.padding
        options["precision"] = precision
        found = vk.explain(conv.op, tensors["x"], tensors["weight"], **options, backend="triton")
        asked.clear()
        conv.results(tensors, None, backend="triton", precision=precision)
        expected = [
            (t.rows, t.columns, t.depth) if hasattr(t, "depth") else (t.inputs, t.outputs, t.rows)
            for t in asked
        ]
        algorithms = (found.forward, found.x_gradient, found.weight_gradient)
        suffix = " tf32" if precision == "medium" else ""
        names = [f"tap-GEMM {a}x{b}x{c}{suffix}" for a, b, c in expected]
        assert [algorithm and algorithm.name for algorithm in algorithms] == names, conv


@pytest.mark.parametrize(
    ("fields", "algorithm"),
    [
        ({"architecture": 0}, "tap_gemm"),
        ({"dtype": "float32"}, "tap_gemm"),
        ({"dtype": "tf32"}, "cudnn"),
        ({"dtype": "tf32", "epilogue": "norm"}, "tap_gemm"),
        ({"epilogue": "norm+residual"}, "tap_gemm"),
        ({"epilogue": "statistics"}, "tap_gemm"),
        ({"epilogue": "residual+projection"}, "tap_gemm"),
        ({"op": "upsample_conv3x3", "direction": "input"}, "tap_gemm"),
        ({"epilogue": "residual"}, "cudnn"),
        ({"op": "downsample_conv3x3", "direction": "weight"}, "cudnn"),
    ],
)
def test_the_rule(fields: dict[str, object], algorithm: str) -> None:
    from vaekernels.backends.triton.conv.dispatch import choose

    chosen = choose(key(**{"architecture": 90, **fields}))
    assert chosen.algorithm == algorithm
    assert chosen.reason.startswith("rule")


def test_a_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.conv import autotune_table
    from vaekernels.backends.triton.conv.tile_heuristics import GradientTile, Tile

    entries = {
        key(architecture=90): autotune_table.Entry(
            "tap_gemm", Tile(128, 256, 64, 8, 3), {"cudnn": 0.25}
        ),
        key("weight", architecture=90): autotune_table.Entry(
            "tap_gemm", GradientTile(64, 128, 128, 8, 3)
        ),
        key("input", architecture=80): autotune_table.Entry("cudnn"),
        key("input", architecture=80, dtype="tf32"): autotune_table.Entry("cudnn"),
    }
    path = tmp_path / "mine.json"
    path.write_bytes(autotune_table.encoded(entries))
    assert autotune_table.read(path) == entries
    assert path.read_bytes() == autotune_table.encoded(autotune_table.read(path))
    monkeypatch.setenv("VAEKERNELS_TUNING", str(path))
    autotune_table.measured.cache_clear()
    try:
        assert {each: found.entry for each, found in autotune_table.measured().items()} == entries
        assert {found.path for found in autotune_table.measured().values()} == {path}
    finally:
        autotune_table.measured.cache_clear()


def test_the_shipped_table_is_valid() -> None:
    from vaekernels.backends.triton.conv import autotune_table

    assert autotune_table.SHIPPED.read_bytes() == autotune_table.encoded(
        autotune_table.read(autotune_table.SHIPPED)
    )


GOOD = {
    "architecture": 90,
    "op": "conv3x3",
    "direction": "forward",
    "dtype": "bfloat16",
    "inputs": 64,
    "outputs": 64,
    "rows": 4096,
    "epilogue": "norm",
    "algorithm": "tap_gemm",
    "tile": [128, 64, 64, 4, 4],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "backward"}, "direction must be one of forward, input, weight"),
        ({"dtype": "float64"}, "dtype must be one of"),
        ({"rows": 0}, "rows must be a positive integer; got 0"),
        ({"epilogue": "residual+norm"}, "epilogue must be some of norm"),
        ({"algorithm": "cublas"}, "algorithm must be tap_gemm with a tile, or cudnn; got 'cublas'"),
        ({"algorithm": "cudnn"}, "algorithm must be"),
        ({"tile": [128, 64, 64, 4]}, "tile must be 5 integers"),
        ({"tile": [128, 48, 64, 4, 4]}, "powers of two"),
        ({"tile": [256, 64, 64, 4, 4]}, "at most 128 rows"),
        (
            {"algorithm": "cudnn", "tile": None, "dtype": "float32"},
            "cudnn is no algorithm of float32",
        ),
        ({"tiles": 3}, "unknown field 'tiles'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    from vaekernels.backends.triton.conv import autotune_table

    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"schema": 1, "entries": [GOOD]}))
    assert len(autotune_table.read(path)) == 1
    path.write_text(json.dumps({"schema": 1, "entries": [{**GOOD, **change}]}))
    with pytest.raises(ValueError, match=rf"{path}: not a table.*{message}"):
        autotune_table.read(path)


def test_a_file_that_is_no_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.conv import autotune_table

    path = tmp_path / "wrong.json"
    for text in ("{", '{"schema": 2, "entries": []}', '{"schema": 1}', '{"entries": []}', "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path}: not a table"):
            autotune_table.read(path)
    monkeypatch.setenv("VAEKERNELS_TUNING", str(tmp_path / "missing.json"))
    autotune_table.measured.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match=r"missing\.json"):
            autotune_table.measured()
    finally:
        autotune_table.measured.cache_clear()
