"""The compiled extension: loaded at the first use, never at import.

``vaekernels/_build.py`` is written by setup.py and says what was built. A build that was
made and cannot be loaded is an error, not a reason to run something slower.
"""

from __future__ import annotations

import functools
import importlib
import platform
import re
from types import ModuleType
from typing import Any

import torch

STABLE_SINCE = "2.10"  # TORCH_TARGET_VERSION of csrc/cuda/CMakeLists.txt


class ExtensionError(RuntimeError):
    """The compiled extension was built but cannot be loaded; the message says what to do."""


@functools.cache
def build_info() -> dict[str, Any]:
    """What setup.py recorded: ``extension``, ``cuda``, ``torch``, ``compiler`` ..."""
    try:
        return dict(importlib.import_module("vaekernels._build").BUILD)
    except ModuleNotFoundError:
        return {"extension": False, "cuda": False, "reason": "not installed: run pip install ."}


def refusals() -> list[str]:
    """Why the C++ kernels cannot run; empty if they can."""
    build = build_info()
    if build["extension"]:
        load()
        return []
    return [f"built without the C++ extension ({build['reason']})"]


@functools.cache
def load() -> ModuleType:
    """Load the C++ kernels; registers the CPU implementations of the torch ops.

    Raises:
        ExtensionError: the library is missing, or was built for another minor version of torch
            or Python, whose binary interface differs.
    """
    build = build_info()
    here = {"torch": torch.__version__, "python": platform.python_version()}
    for name, version in here.items():
        if _series(build[name]) != _series(version):
            raise _not_loaded(f"it was built for {name} {build[name]} and this is {name} {version}")
    try:
        return importlib.import_module("vaekernels._C")
    except ImportError as error:
        raise _not_loaded(f"it was built for torch {build['torch']}: {error}") from error


def _series(version: str) -> str:
    """What the binary interface of a version is that of: its minor version, or this one build."""
    public = str(version).partition("+")[0]
    release = re.fullmatch(r"(\d+\.\d+)(\.\d+)*(\.post\d+)?", public)
    return release[1] if release else public


def _not_loaded(reason: str) -> ExtensionError:
    return ExtensionError(
        f"the C++ extension is not loaded: {reason}. Build it again with `pip install "
        "--force-reinstall --no-deps .`, or install without it: "
        "`VAEKERNELS_NO_EXTENSION=1 pip install .`"
    )


def cuda_refusals() -> list[str]:
    """Why the CUDA C++ kernels cannot run; empty if they can."""
    build = build_info()
    if not build["cuda"]:
        return ["built without the CUDA library (nvcc was not found, or torch has no CUDA)"]
    if not torch.cuda.is_available():
        return ["torch finds no CUDA device"]
    load()
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
