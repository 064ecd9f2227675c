"""The compiled extension: loaded at the first use, never at import.

``vaekernels/_build.py`` is written by setup.py and says what was built. A build that was
made and cannot be loaded is an error, not a reason to run something slower.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch


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
        ExtensionError: the library is missing or does not fit the installed torch.
    """
    build = build_info()
    try:
        importlib.import_module("vaekernels.ops")  # declares the schemas
        return importlib.import_module("vaekernels._C")
    except ImportError as error:
        raise ExtensionError(
            f"the C++ extension does not load: {error}. It was built for torch "
            f"{build.get('torch')} and this is torch {torch.__version__}; reinstall with "
            "`pip install --force-reinstall --no-deps .`, or without it: "
            "`VAEKERNELS_NO_EXTENSION=1 pip install .`"
        ) from error


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
    """Load the CUDA library; registers the CUDA implementations of the torch ops."""
    from pathlib import Path

    torch.ops.load_library(str(Path(__file__).parent / "libvaekernels_cuda.so"))
