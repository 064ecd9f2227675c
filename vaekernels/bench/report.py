"""The record as JSON, and the latent ops as a table for people."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from vaekernels.bench.targets import Row
from vaekernels.utils.atomic_file import atomic_write


def geometric_means(rows: list[Row]) -> dict[str, float]:
    """Geometric mean of the ratios per (op, direction), and of all losses together."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[f"{row['op']} {row['direction']}"].append(row["ratio"])
        if row["op"] != "rsample_kl":
            groups[f"losses {row['direction']}"].append(row["ratio"])
    return {name: statistics.geometric_mean(ratios) for name, ratios in groups.items()}


def write_json(
    path: Path, rows: list[Row], machine: dict[str, Any], settings: Row, summary: Row
) -> None:
    """Write the record atomically.

    Args:
        path: the file.
        rows: every row.
        machine: what it was measured on.
        settings: how.
        summary: what the rows come to; its items stand beside the rows.
    """
    record = {"machine": machine, "settings": settings, "rows": rows, **summary}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def print_table(rows: list[Row], machine: dict[str, Any]) -> None:
    """Print a line per op and shape, then the geometric means."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 104))
    where = machine.get("gpu") or machine["cpu"]
    title = f"{where}, {machine['threads']} threads, torch {machine['torch']}: eager / ours"
    table = Table(title=title, title_justify="left")
    table.add_column("op")
    table.add_column("shape")
    for direction in ("forward", "fwd + bwd"):
        table.add_column(f"{direction}, us", justify="right")
        table.add_column("ratio", justify="right")
    table.add_column("peak MiB", justify="right")
    lines: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        lines[row["op"], "x".join(map(str, row["shape"]))][row["direction"]] = row
    for (op, shape), directions in lines.items():
        cells = []
        for direction in ("forward", "forward+backward"):
            if direction not in directions:  # an interrupted run
                cells += ["-", "-"]
                continue
            row = directions[direction]
            cells += [f"{row['eager_us']:,.0f} / {row['ours_us']:,.0f}", f"{row['ratio']:.2f}"]
        row = next(reversed(directions.values()))
        mebibytes = [row[f"{who}_peak_bytes"] / 2**20 for who in ("eager", "ours")]
        table.add_row(op, shape, *cells, "{:.2f} / {:.2f}".format(*mebibytes))
    console.print(table)
    means = Table(title="geometric means; above 1: ours is faster", title_justify="left")
    means.add_column("group")
    means.add_column("ratio", justify="right")
    for name, ratio in geometric_means(rows).items():
        means.add_row(name, f"{ratio:.2f}")
    console.print(means)
