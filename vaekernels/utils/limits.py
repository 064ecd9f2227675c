"""Limits that are checked before memory is allocated or files are parsed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

# Sizes and counts are passed to PyTorch and multiplied there as 64-bit integers.
LARGEST_SIZE = 2**31 - 1
# Scalars of a training step are float32.
LARGEST_FLOAT = torch.finfo(torch.float32).max
# Levels of a model, and blocks of a level; constructing more takes minutes.
MOST_LAYERS = 1000
# A configuration is a few kB; a list of a million entries is not one.
LARGEST_FILE = 2**20


def check_room(what: str, needed: int, device: torch.device | str = "cpu") -> None:
    """Check that ``needed`` bytes do not exceed the total memory of ``device``.

    Raises:
        ValueError: they do; the message begins with ``what``.
    """
    total = total_memory(device)
    if total is not None and needed > total:
        raise ValueError(
            f"{what} needs {needed / 2**30:,.0f} GiB of memory; {device} has {total / 2**30:,.0f}"
        )


def total_memory(device: torch.device | str = "cpu") -> int | None:
    """All the memory of a device in bytes; None where the system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def read_json_object(path: Path, *, otherwise: str = "expected JSON") -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is too large, nested too deeply, or not a JSON object.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(
            f"{path}: expected a JSON file of at most {LARGEST_FILE:,} bytes; got {size:,}"
        )
    values = parse_json(str(path), path.read_bytes(), otherwise)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object; got {type(values).__name__}")
    return values


def parse_json(source: str, content: str | bytes, otherwise: str = "expected JSON") -> Any:
    """Parse ``content``; errors begin with ``source`` and ``otherwise``.

    Raises:
        ValueError: the content is not JSON, nested too deeply, or has a number of too many digits.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{source}: {otherwise}; it is nested too deep") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, too many digits
        raise ValueError(f"{source}: {otherwise}; {error}") from error
