"""The machine, and the two rates that bound everything: of copies and of matrix products."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.phase import Context, Row
from vaekernels.backends import extension
from vaekernels.bench.timing import columns, timings
from vaekernels.runtime import cpu_info

_CLOCKS = (
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


def run(context: Context) -> Iterator[Row]:
    yield {"name": "machine", **_machine(context.device), "clocks": _query(*_CLOCKS)}
    yield from context.each(_WORKS, lambda one: one[0], lambda one, s: one[1](context, s))
    yield {"name": "clocks afterwards", "clocks": _query(*_CLOCKS)}


def _machine(device: str) -> Row:
    found = cpu_info.describe()
    found["triton"] = _version("triton")
    found["cudnn"] = torch.backends.cudnn.version() if device == "cuda" else None
    found["driver"] = _query("driver_version").get("driver_version")
    found["extension"] = bool(extension.build_info()["extension"])
    found["cuda_library"] = bool(extension.build_info()["cuda"])
    if device == "cuda":
        properties = torch.cuda.get_device_properties("cuda")
        found |= {
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "capability": list(torch.cuda.get_device_capability()),
        }
    return found


def _copy(context: Context, seconds: float) -> Row:
    """Bytes read and bytes written, per second."""
    numbers = 2**12 if context.tiny else 2**30
    source = torch.randint(256, (numbers,), dtype=torch.uint8, device=context.device)
    target = torch.empty_like(source)
    found = timings({"copy": lambda: target.copy_(source)}, seconds=seconds)
    return {**columns(found), "gbps": 2 * numbers / found["copy"].seconds / 1e9}


def _matmul(dtype: torch.dtype, precision: str, context: Context, seconds: float) -> Row:
    size = 32 if context.tiny else 8192
    a, b = (torch.randn(size, size, device=context.device, dtype=dtype) for _ in range(2))
    torch.set_float32_matmul_precision(precision)
    try:
        found = timings({"matmul": lambda: a @ b}, seconds=seconds)
    finally:
        torch.set_float32_matmul_precision("highest")
    return {**columns(found), "tflops": 2 * size**3 / found["matmul"].seconds / 1e12}


_WORKS = (
    ("copy", _copy),
    ("matmul bfloat16", lambda context, s: _matmul(torch.bfloat16, "highest", context, s)),
    ("matmul tf32", lambda context, s: _matmul(torch.float32, "high", context, s)),
)


def _version(package: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _query(*fields: str) -> dict[str, Any]:
    """Fields of the first GPU by nvidia-smi; empty without a GPU."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in result.stdout.splitlines()[0].split(",")]
    return dict(zip(fields, values, strict=True))
