"""The command line: one file for each command, registered by its import here."""

# The order of the imports is the order of `vaekernels --help`.
# ruff: noqa: I001
from __future__ import annotations

from vaekernels.utils.extras import needs_extra

with needs_extra("cli", "the command line"):
    import typer, rich, tqdm  # noqa: E401, F401

from vaekernels.cli._app import app
from vaekernels.cli import train
from vaekernels.cli import sample
from vaekernels.cli import reconstruct
from vaekernels.cli import traverse
from vaekernels.cli import encode
from vaekernels.cli import demo
from vaekernels.cli import bench
from vaekernels.cli import tune
from vaekernels.cli import info

__all__ = [
    "app",
    "bench",
    "demo",
    "encode",
    "info",
    "main",
    "reconstruct",
    "sample",
    "train",
    "traverse",
    "tune",
]


def main() -> None:
    """Run the command line; known errors are one line on stderr and exit code 2."""
    app(prog_name="vaekernels")
