"""``vaekernels info``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaekernels.backends import registry
from vaekernels.cli._app import app
from vaekernels.runtime import build_info


@app.command()
def info(
    json: Annotated[bool, typer.Option("--json", help="As JSON, for bug reports.")] = False,
) -> None:
    """Versions, build, and the backends that run each op, with the reasons of those that cannot."""
    described = build_info.describe()
    if json:
        import json as encoder

        typer.echo(encoder.dumps(described, indent=1))
        return
    _print(described)


def _print(described: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title in ("machine", "build"):
        table = Table(title=title, show_header=False, title_justify="left")
        for key, value in described[title].items():
            table.add_row(key, str(value))
        console.print(table)
    reasons: list[str] = []
    for device, ops in described["backends"].items():
        table = Table(title=f"backends of {device} tensors (float32)", title_justify="left")
        table.add_column("op")
        for backend in registry.BACKENDS:
            table.add_column(backend)
        for op, answers in ops.items():
            table.add_row(op, *(_cell(answer, reasons) for answer in answers.values()))
        console.print(table)
    for number, reason in enumerate(reasons, start=1):
        console.print(f"({number}) {reason}", highlight=False)


def _cell(answer: str, reasons: list[str]) -> str:
    """The availability, or the number of the reason why the backend cannot run."""
    if answer in (build_info.RUNS, build_info.WOULD_RUN):
        return answer
    if answer not in reasons:
        reasons.append(answer)
    return f"refuses ({reasons.index(answer) + 1})"
