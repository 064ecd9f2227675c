"""Choosing a backend: precedence, refusals with reasons, no silent fallback."""

from __future__ import annotations

import logging
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import vaekernels as vk
from vaekernels.backends import extension, registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.runtime import build_info

needs_extension = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)


def _chosen(backend: str | None = None) -> str:
    return registry.select("rsample_kl", "cpu", torch.float32, backend)


@needs_extension
def test_the_argument_beats_the_context_beats_the_ranking() -> None:
    assert _chosen() == "cpu"
    with vk.use_backend("reference"):
        assert _chosen() == "reference"
        assert _chosen("cpu") == "cpu"
        with vk.use_backend("cpu"):
            assert _chosen() == "cpu"
        assert _chosen() == "reference"
    assert _chosen() == "cpu"


@needs_extension
def test_the_chosen_backend_really_runs() -> None:
    mean = torch.randn(2, 3, requires_grad=True)
    fused = vk.gaussian_kl(mean, mean)
    plain = vk.gaussian_kl(mean, mean, backend="reference")
    assert fused.grad_fn is not None
    assert plain.grad_fn is not None
    assert fused.grad_fn.name() == "gaussian_kl_backward"
    assert plain.grad_fn.name() == "SumBackward1"


def test_an_explicit_choice_that_refuses_says_every_reason() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(vk.BackendError, match="gaussian_kl: backend 'cuda' cannot run.*float32"):
        vk.gaussian_kl(x, x, backend="cuda")
    with vk.use_backend("cuda"), pytest.raises(vk.BackendError, match="tensors are on cpu"):
        vk.gaussian_kl(x, x)


def test_a_record_says_what_ran() -> None:
    x = torch.zeros(2, 3)
    with registry.recorded_choices() as outer:
        with registry.recorded_choices() as choices:
            limits = dict.fromkeys(vk.BACKENDS, "too large")
            with pytest.warns(UserWarning, match="too large"):
                run = registry.implementation("gaussian_kl", x, limits=limits)
        vk.conv3x3(torch.zeros(1, 2, 3, 4), torch.zeros(5, 2, 3, 3), backend="reference")
    assert run is DEFINITIONS["gaussian_kl"].reference
    assert choices == [registry.Choice("gaussian_kl", "cpu", torch.float32, "reference")]
    (choice,) = outer
    assert (choice.op, choice.backend) == ("conv3x3", "reference")
    assert choice.arguments["x"].shape == (1, 2, 3, 4)
    assert choice.arguments["x"].is_meta  # a record holds no images
    assert choice.arguments["precision"] == "high"
    assert not registry.is_recording()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="use_backend: expected one of cpu, cuda.*'tpu'"):
        vk.use_backend("tpu").__enter__()


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_variable_is_read() -> None:
    code = (
        "import torch\nfrom vaekernels.backends import registry\n"
        "print(registry.select('rsample_kl', 'cpu', torch.float32))"
    )
    assert _python(code, VAEKERNELS_BACKEND="reference").stdout.strip() == "reference"
    bad = _python(code, VAEKERNELS_BACKEND="tpu")
    assert bad.returncode != 0
    assert "VAEKERNELS_BACKEND: expected one of" in bad.stderr
    assert _python("import vaekernels", VAEKERNELS_BACKEND="tpu").returncode == 0
    main = "import sys; from vaekernels.cli import main; sys.argv[1:] = ['info']; main()"
    bad = _python(main, VAEKERNELS_BACKEND="tpu")
    assert bad.returncode == 2
    assert re.fullmatch(r"error: VAEKERNELS_BACKEND: expected one of .*; got 'tpu'\n", bad.stderr)


@needs_extension
def test_the_capability_variable_is_read() -> None:
    code = "from vaekernels.backends import extension\nprint(extension.load().cpu_capability())"
    assert _python(code, VAEKERNELS_CPU_CAPABILITY="baseline").stdout.strip() == "baseline"
    bad = _python(code, VAEKERNELS_CPU_CAPABILITY="mmx")
    assert "expected baseline, avx2 or avx512; got mmx" in bad.stderr


def test_import_touches_neither_cuda_nor_triton_nor_the_extension() -> None:
    code = (
        "import sys, vaekernels, torch\n"
        "assert 'triton' not in sys.modules\n"
        "assert 'vaekernels._C' not in sys.modules\n"
        "assert not torch.cuda.is_initialized()"
    )
    result = _python(code)
    assert result.returncode == 0, result.stderr


def test_a_build_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaekernels._C", None)
    monkeypatch.setattr(extension, "build_info", lambda: BUILD_HERE)
    with pytest.raises(extension.ExtensionError, match=r"built for torch .*_C.*pip install"):
        extension.load.__wrapped__()


BUILD_HERE = {
    "extension": True,
    "cuda": False,
    "torch": torch.__version__,
    "python": platform.python_version(),
}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("torch", "2.1.0+cpu"),
        ("torch", "9.9.0"),
        ("python", "3.8.1"),
        ("torch", "2.13.0.dev20260101"),
    ],
)
def test_a_library_of_another_version_is_not_loaded(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even looked for: an interface that differs could do anything."""
    monkeypatch.setitem(sys.modules, "vaekernels._C", ModuleType("vaekernels._C"))
    monkeypatch.setattr(extension, "build_info", lambda: {**BUILD_HERE, name: version})
    message = f"built for {name} {re.escape(version)} and this is {name} .*pip install"
    with pytest.raises(extension.ExtensionError, match=message):
        extension.load.__wrapped__()


@needs_extension
def test_a_library_of_another_patch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    major, minor, *_ = torch.__version__.split(".")
    build = {**BUILD_HERE, "torch": f"{major}.{minor}.99+cu128"}
    monkeypatch.setattr(extension, "build_info", lambda: build)
    assert extension.load.__wrapped__() is extension.load()


def test_the_cuda_library_needs_the_stable_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(extension, "STABLE_SINCE", "99.0")
    with pytest.raises(extension.ExtensionError, match="needs torch 99.0 or later; this is"):
        extension.load_cuda.__wrapped__()
    monkeypatch.undo()
    digits = "".join(f"{int(part):02x}" for part in extension.STABLE_SINCE.split("."))
    text = (Path(extension.__file__).parents[2] / "csrc/cuda/CMakeLists.txt").read_text()
    assert f"TORCH_TARGET_VERSION=0x{digits}" in text
    assert not loaded


def test_without_an_extension_the_reference_runs_and_info_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = {"extension": False, "cuda": False, "reason": "VAEKERNELS_NO_EXTENSION=1"}
    monkeypatch.setattr(extension, "build_info", lambda: build)
    assert registry._automatic.__wrapped__("gaussian_kl", "cpu", torch.float32) == "reference"
    answers = build_info.describe()["backends"]["cpu"]["gaussian_kl"]
    assert answers["reference"] == build_info.RUNS
    assert "VAEKERNELS_NO_EXTENSION=1" in answers["cpu"]


def test_a_cuda_tensor_on_the_reference_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(backend: str, *_: object) -> list[str]:
        return [] if backend == "reference" else ["not here"]

    monkeypatch.setattr(registry, "refusals", refuse)
    with caplog.at_level(logging.DEBUG, "vaekernels"), pytest.warns(UserWarning, match="plain PyT"):
        registry._automatic.__wrapped__("gaussian_kl", "cuda", torch.float32)
    assert "backend triton refused: not here" in caplog.text
