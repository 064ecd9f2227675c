"""What a figure was measured on: it means little without."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


def describe(device: torch.device) -> dict[str, str | int]:
    """Processor, threads, device and versions, for a record of measurements."""
    from vaekernels import __version__

    machine: dict[str, str | int] = {
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vaekernels": __version__,
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    if _CPUINFO.exists():  # Linux; elsewhere the platform module knows
        for line in _CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
