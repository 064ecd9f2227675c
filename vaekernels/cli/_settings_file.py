"""``--config run.toml``: settings of a run in a file.

::

    [model]
    kind = "vae"            # as --model; the others are fields of the kind's config
    latent_dim = 32
    hidden = [32, 64]

    [optim]
    optimizer = "adamw"
    lr = 2e-3

The other tables are ``run``, ``data``, ``schedule`` and ``objective``, with the fields of the
parts of :class:`vaekernels.training.TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaekernels.utils.limits import LARGEST_FILE


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the model, and those of the training, in a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: on Python 3.10 without tomli.
        ValueError: it is not TOML, or a table or key is unknown; the error names it.
    """
    from vaekernels.training.config import PARTS

    module = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        toml = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"--config needs the package {module}: pip install {module}"
        ) from error
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path}: expected a TOML file of at most {LARGEST_FILE:,} bytes")
    try:
        tables = toml.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected TOML; {error}") from error
    check_keys(f"{path}: tables", tables, ["model", *PARTS])
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path}: expected a table [{name}]; got {table!r}")
    model = tables.pop("model", {})
    settings: dict[str, Any] = {}
    for name, table in tables.items():
        known = [field.name for field in dataclasses.fields(PARTS[name])]
        check_keys(f"{path}: keys of [{name}]", table, known)
        settings |= table
    return model, settings


def check_keys(what: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Raise unless all of ``found`` are ``expected``; the message begins with ``what``.

    Raises:
        ValueError: others are there; the error names them.
    """
    unknown = sorted(set(found) - set(expected))
    if unknown:
        raise ValueError(f"{what} must be among {', '.join(expected)}; got {', '.join(unknown)}")
