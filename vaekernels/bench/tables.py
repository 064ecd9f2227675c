"""Rows and goals of the convolutions and the models, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vaekernels.bench.targets import Row

Columns = dict[str, str]


def text(value: object) -> str:
    """A cell; a figure that was not measured is a dash."""
    return "-" if value is None else str(value)


def ratio(value: float | None) -> str:
    """``2.50x``; a dash where there is none."""
    return "-" if value is None else f"{value:.2f}x"


def milliseconds(row: Row, name: str) -> str:
    """The time ``{name}_us`` of a row in ms; a dash where there is none."""
    microseconds = row.get(f"{name}_us")
    return "-" if microseconds is None else f"{microseconds / 1e3:,.3f}"


def errors(row: Row) -> str:
    """Our error beside eager's."""
    return f"{row['error']:.1e} / {row['eager_error']:.1e}"


def conv_cells(row: Row) -> Columns:
    """A row of ``bench conv``."""
    where = "" if row["layout"] == "channels_last" else f", {row['layout']}"
    return {
        "op": row["op"],
        "case": row["case"] + where,
        "direction": row["direction"],
        "threads": text(row["threads"]),
        "NCHW, ms": milliseconds(row, "eager_nchw"),
        "channels_last, ms": milliseconds(row, "eager_channels_last"),
        "ours, ms": milliseconds(row, "ours"),
        "ratio": row.get("wrong") or ratio(row["ratio"]),
        "error, ours / eager": errors(row),
        "algorithm": text(row["algorithm"]),
    }


def model_cells(row: Row) -> Columns:
    """A row of ``bench models``."""
    compiled = milliseconds(row, "compile")
    return {
        "model": row["model"],
        "images": text(row["batch"]),
        "NCHW, ms": milliseconds(row, "eager_nchw"),
        "channels_last, ms": milliseconds(row, "eager_channels_last"),
        "compile, ms": compiled if row["compile_failed"] is None else "failed",
        "ours, ms": milliseconds(row, "ours"),
        "ratio": row.get("wrong") or ratio(row["ratio"]),
        "error of gradients, ours / eager": errors(row),
    }


def autoencoder_cells(row: Row) -> Columns:
    """A row of ``bench autoencoders``."""
    others = (
        "eager_nchw",
        "eager_channels_last",
        "compile",
        "onnxruntime",
        "openvino",
        "mnn",
        "ncnn",
    )
    headings = ("NCHW", "channels_last", "compile", "ORT", "OpenVINO", "MNN", "ncnn", "ours")
    times = {
        f"{heading}, ms": "failed" if name in row["failed"] else milliseconds(row, name)
        for heading, name in zip(headings, (*others, "ours"), strict=True)
    }
    return {
        "model": row["model"],
        **times,
        "ratio to eager": row.get("wrong") or ratio(row["ratio"]),
        "to engines": ratio(row.get("engines_ratio")),
        "to MNN": ratio(row.get("mnn_ratio")),
        "error, ours / eager": errors(row),
    }


def goal_cells(goal: Row) -> Columns:
    """A goal as it was judged."""
    return {
        "group": goal["group"],
        "of": f"{goal['figure'].replace('_', ' ')}, {goal['over']} of {goal['rows']}",
        "goal": f"at {goal['at']} {goal['goal']:g}x",
        "measured": ratio(goal["measured"]),
        "met": "yes" if goal["met"] else "no",
    }


def line(cells: Columns) -> str:
    """A row on one line, for the log of a run."""
    return "  ".join(cells.values())


def print_rows(rows: Sequence[Columns], goals: Sequence[Row], machine: dict[str, Any]) -> None:
    """Print a line per row, then the goals."""
    title = (
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}: medians; "
        "ratio: the fastest of the others / ours"
    )
    _print(title, rows)
    _print("goals", [goal_cells(goal) for goal in goals])


def _print(title: str, rows: Sequence[Columns]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    console = Console(width=max(Console().width, 170))
    table = Table(title=title, title_justify="left")
    numbers = ("ms", "ratio", "error", "threads", "images", "goal", "measured")
    for name in rows[0]:
        table.add_column(name, justify="right" if any(word in name for word in numbers) else "left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
