"""Rows and targets as tables on the terminal, and their record as JSON."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaekernels.bench.targets import Row
from vaekernels.utils.atomic_file import atomic_write

Columns = dict[str, str]


def ratio(value: float | None) -> str:
    """``2.50x``; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def milliseconds(row: Row, name: str) -> str:
    """The time ``{name}_us`` of a row in ms; a dash where there is none."""
    microseconds = row.get(f"{name}_us")
    return "-" if microseconds is None else f"{microseconds / 1e3:,.3f}"


def _times(row: Row, headings: dict[str, str]) -> Columns:
    failed = row.get("failed") or {"compile": row.get("compile_failed")}
    return {
        f"{heading}, ms": "failed" if failed.get(name) else milliseconds(row, name)
        for name, heading in headings.items()
    }


def _verdict(row: Row) -> Columns:
    """The ratio, or what is wrong, and our error beside eager's."""
    return {
        "ratio": row.get("wrong") or ratio(row["ratio"]),
        "error, ours / eager": f"{row['error']:.1e} / {row['eager_error']:.1e}",
    }


_LAYOUTS = {"eager_nchw": "NCHW", "eager_channels_last": "channels_last"}


def latent_cells(row: Row) -> Columns:
    """A row of ``bench latent``."""
    sides = ("eager", "ours")
    times = {f"{who}, us": row.get(f"{who}_us") for who in sides}
    peaks = [row.get(f"{who}_peak_bytes") for who in sides]
    return {
        "op": row["op"],
        "case": row["case"],
        "shape": "x".join(map(str, row["shape"])),
        "direction": row["direction"],
        **{name: "-" if time is None else f"{time:,.1f}" for name, time in times.items()},
        "peak MiB, eager / ours": " / ".join(
            "-" if peak is None else f"{peak / 2**20:.2f}" for peak in peaks
        ),
        **_verdict(row),
    }


def conv_cells(row: Row) -> Columns:
    """A row of ``bench conv``."""
    layout = "" if row["layout"] == "channels_last" else f", {row['layout']}"
    return {
        "op": row["op"],
        "case": row["case"] + layout,
        "direction": row["direction"],
        "threads": str(row["threads"]),
        **_times(row, {**_LAYOUTS, "ours": "ours"}),
        **_verdict(row),
        "algorithm": row["algorithm"],
    }


def model_cells(row: Row) -> Columns:
    """A row of ``bench models``: the error is of the gradients."""
    return {
        "model": row["model"],
        "images": str(row["batch"]),
        **_times(row, {**_LAYOUTS, "compile": "compile", "ours": "ours"}),
        **_verdict(row),
    }


def autoencoder_cells(row: Row) -> Columns:
    """A row of ``bench autoencoders``."""
    engines = {"compile": "compile", "onnxruntime": "ORT", "openvino": "OpenVINO", "mnn": "MNN"}
    return {
        "model": row["model"],
        **_times(row, {**_LAYOUTS, **engines, "ncnn": "ncnn", "ours": "ours"}),
        **_verdict(row),
        "to engines": ratio(row.get("engines_ratio")),
        "to MNN": ratio(row.get("mnn_ratio")),
    }


def target_cells(target: Row) -> Columns:
    """A target as it was judged."""
    return {
        "group": target["group"],
        "figure": f"{target['figure'].replace('_', ' ')}, {target['over']} of {target['rows']}",
        "goal": f"at {target['at']} {target['goal']:g}x",
        "measured": ratio(target["measured"]),
        "met": "yes" if target["met"] else "no",
    }


def geometric_means(rows: Sequence[Row]) -> dict[str, float]:
    """Geometric mean of the ratios per (op, direction), and of all losses together."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["ratio"] is not None:
            groups[f"{row['op']} {row['direction']}"].append(row["ratio"])
            if row["op"] != "rsample_kl":
                groups[f"losses {row['direction']}"].append(row["ratio"])
    return {name: statistics.geometric_mean(ratios) for name, ratios in groups.items()}


def line(cells: Columns) -> str:
    """A row on one line, for the log of a run."""
    return "  ".join(cells.values())


def title(machine: dict[str, Any]) -> str:
    """The machine, and what the figures are."""
    where = machine.get("gpu") or machine["cpu"]
    return (
        f"{where}, {machine['threads']} threads, torch {machine['torch']}: medians; ratio: the "
        "fastest of the others / ours"
    )


def print_table(heading: str, rows: Sequence[Columns]) -> None:
    """Print a table with a line per row."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    console = Console(width=max(Console().width, 170))
    table = Table(title=heading, title_justify="left")
    numbers = ("ms", "us", "ratio", "error", "threads", "images", "goal", "measured", "MiB")
    for name in rows[0]:
        table.add_column(name, justify="right" if any(word in name for word in numbers) else "left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def write_json(
    path: Path, rows: Sequence[Row], machine: dict[str, Any], settings: Row, summary: Row
) -> None:
    """Write the record atomically.

    Args:
        path: the file.
        rows: every row.
        machine: where it was measured.
        settings: how it was measured.
        summary: further items of the record, such as the targets.
    """
    record = {"machine": machine, "settings": settings, "rows": rows, **summary}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
