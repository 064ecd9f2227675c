"""The compiled extension: loaded at the first use, never at import.

setup.py writes ``vaekernels/_build.py``, which describes the build. A build for another version of
torch or Python is not loaded: plain PyTorch runs, with a warning. A matching build that cannot be
loaded is an error, never a silent fallback to something slower.
"""

from __future__ import annotations

import functools
import importlib
import platform
import re
import warnings
from types import ModuleType
from typing import Any

import torch

TESTED = ("2.11", "2.13")  # the first and the last minor version of torch, as in pyproject.toml
STABLE_SINCE = "2.10"  # TORCH_TARGET_VERSION of csrc/cuda/CMakeLists.txt


class ExtensionError(RuntimeError):
    """The compiled extension was built but cannot be loaded; the message states the remedy."""


@functools.cache
def build_info() -> dict[str, Any]:
    """What setup.py recorded: ``extension``, ``cuda``, ``torch``, ``compiler`` ..."""
    try:
        return dict(importlib.import_module("vaekernels._build").BUILD)
    except ModuleNotFoundError:
        return {"extension": False, "cuda": False, "reason": "not installed: run pip install ."}


def refusals() -> list[str]:
    """The reasons why the C++ kernels cannot run; empty if they can.

    Warns:
        UserWarning: they were built for another version of torch or Python; once.
    """
    build = build_info()
    if not build["extension"]:
        return [f"built without the C++ extension ({build['reason']})"]
    if reason := _version_refusal(build):
        _warn_once(f"{_not_loaded(reason)} Until then plain PyTorch is used.")
        return [f"the C++ extension is not loaded: {reason}"]
    load()
    return []


_warn_once = functools.cache(functools.partial(warnings.warn, stacklevel=3))


@functools.cache
def load() -> ModuleType:
    """Load the C++ kernels; registers the CPU implementations of the torch ops.

    Raises:
        ExtensionError: the library is missing, was built for another minor version of torch
            or Python, whose binary interface differs, or this torch is not a tested one.
    """
    build = build_info()
    if reason := _version_refusal(build):
        raise _not_loaded(reason)
    try:
        return importlib.import_module("vaekernels._C")
    except ImportError as error:
        raise _not_loaded(f"it was built for torch {build['torch']}: {error}") from error


def _version_refusal(build: dict[str, Any]) -> str | None:
    """Why the extension does not fit this torch and this Python; None if it does."""
    here = {"torch": str(torch.__version__), "python": platform.python_version()}
    for name, version in here.items():
        if _series(build[name]) != _series(version):
            return f"it was built for {name} {build[name]} and this is {name} {version}"
    first, last = map(_minor, TESTED)
    if not first <= _minor(here["torch"]) <= last:
        return f"it is tested with torch {TESTED[0]} to {TESTED[1]} and this is {here['torch']}"
    return None


def _minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def _series(version: str) -> str:
    """What the binary interface of a version is that of: its minor version, or this one build."""
    public = str(version).partition("+")[0]
    release = re.fullmatch(r"(\d+\.\d+)(\.\d+)*(\.post\d+)?", public)
    return release[1] if release else public


def _not_loaded(reason: str) -> ExtensionError:
    return ExtensionError(
        f"the C++ extension is not loaded: {reason}. Build it for this environment with `pip "
        "install --force-reinstall --no-deps --no-build-isolation --no-binary vaekernels "
        "vaekernels` (in a checkout with `.` as the last word), or install without it: "
        "VAEKERNELS_NO_EXTENSION=1."
    )


def cuda_refusals() -> list[str]:
    """Why the CUDA C++ kernels cannot run; empty if they can."""
    build = build_info()
    if not build["cuda"]:
        return ["built without the CUDA library (nvcc was not found, or torch has no CUDA)"]
    if not torch.cuda.is_available():
        return ["torch finds no CUDA device"]
    if reasons := refusals():
        return reasons
    load_cuda()
    return []


@functools.cache
def load_cuda() -> None:
    """Load the CUDA library; registers the CUDA implementations of the torch ops.

    Raises:
        ExtensionError: this torch is older than the stable interface that the library is built on.
    """
    from pathlib import Path

    if torch.__version__ < STABLE_SINCE:
        raise _not_loaded(
            f"the CUDA library needs torch {STABLE_SINCE} or later; this is {torch.__version__}"
        )
    torch.ops.load_library(str(Path(__file__).parents[1] / "libvaekernels_cuda.so"))
