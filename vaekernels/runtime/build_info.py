"""Versions, build, and the availability of backends: the content of ``vaekernels info``."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from vaekernels.backends import extension, registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.runtime import cpu_info

RUNS = "runs"
WOULD_RUN = "would run"  # if selected explicitly; another backend has a higher rank
OPTIONAL = ("triton", "safetensors", "huggingface_hub", "matplotlib", "mlxtend")


def describe() -> dict[str, Any]:
    """Machine, build and, per device and op, the availability of each backend."""
    build = dict(extension.build_info())
    if not extension.refusals():
        build["cpu_capabilities"] = ", ".join(extension.load().cpu_capabilities())
    return {
        "machine": {**cpu_info.describe(), **_versions()},
        "build": build,
        "backends": {device: _availability(device) for device in ("cpu", "cuda")},
    }


def _versions() -> dict[str, str]:
    return {package: _version(package) for package in OPTIONAL}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _availability(device: str) -> dict[str, dict[str, str]]:
    """Op -> backend -> RUNS, WOULD_RUN, or the reasons why it cannot run."""
    availability: dict[str, dict[str, str]] = {}
    for op in DEFINITIONS:
        row: dict[str, str] = {}
        chosen = False
        for backend in registry.BACKENDS:
            reasons = registry.refusals(backend, op, device, torch.float32)
            first = not reasons and backend in registry.RANKING[device] and not chosen
            chosen = chosen or first
            row[backend] = "; ".join(reasons) or (RUNS if first else WOULD_RUN)
        availability[op] = row
    return availability
