"""Write the tables of measured figures in README and docs from the committed JSON.

``python benchmarks/readme_tables.py`` rewrites them; ``--check`` says whether they are current.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
ERRORS = ("error", "eager_error")
TIERS = ("high", "highest", "eager")


def latent(machine: str = "cpu") -> str | None:
    """The latent ops on CPU."""
    record = _record(machine, "latent.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], "eager PyTorch"),
        "",
        "| op | shape | forward | forward + backward | peak memory, eager / ours |",
        "|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in record["rows"]:
        rows[row["op"], " x ".join(map(str, row["shape"]))][row["direction"]] = row
    for (op, shape), by_direction in rows.items():
        both = by_direction["forward+backward"]
        memory = " / ".join(f"{both[f'{who}_peak_bytes'] / 2**20:.2f}" for who in ("eager", "ours"))
        ratios = " | ".join(f"{row['ratio']:.2f}x" for row in by_direction.values())
        lines.append(f"| `{op}` | {shape} | {ratios} | {memory} MiB |")
    for group in ("rsample_kl", "losses"):
        means = record["geometric_means"]
        cells = [f"**{means[f'{group} {d}']:.2f}x**" for d in ("forward", "forward+backward")]
        name = "`rsample_kl`" if group == "rsample_kl" else "the four losses"
        lines.append(f"| {name} | geometric mean | {cells[0]} | {cells[1]} | |")
    return "\n".join(lines)


# Group of ``bench conv`` -> what it measures, and over what range.
CONV = {
    "conv3x3": "3x3 convolution, 64 to 512 channels, 32 to 256 px",
    "conv3x3-training": "the same in training (the filter is transformed at every call)",
    "upsample": "nearest-2x upsampling + 3x3 convolution",
    "norm-forward": "GroupNorm + SiLU, forward",
    "norm-training": "GroupNorm + SiLU, forward and backward",
    "input-gradient": "3x3 convolution, input gradient",
    "weight-gradient": "3x3 convolution, weight gradient",
    "strided": "4x4 stride-2 convolution and its transpose, batch 64: forward, input gradient",
    "strided-weight-gradient": "the same, weight gradient",
    "downsample3x3": "3x3 convolution with stride 2",
    "ends": "3 channels in or out",
    "ends-transpose": "transposed 4x4 convolution to 3 channels",
    "highest": "3x3 convolution, highest precision",
    "highest-weight-gradient": "the same, weight gradient",
    "odd": "odd channels, sizes and batches; one thread",
}


def conv(machine: str = "cpu") -> str | None:
    """The convolutions on CPU, a line per group."""
    record = _record(machine, "conv.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], "the faster of eager PyTorch's two layouts"),
        "",
        "| work | rows | speed-up | from | to | error, ours | error, eager |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"conv.json: {row['op']} {row['case']}: {row['wrong']}")
        groups[row["group"]].append(row)
    for group, rows in groups.items():
        ratios = [row["ratio"] for row in rows]
        errors = " | ".join(f"{max(row[who] for row in rows):.1e}" for who in ERRORS)
        lines.append(
            f"| {CONV[group]} | {len(rows)} | **{statistics.geometric_mean(ratios):.2f}x** "
            f"| {min(ratios):.2f}x | {max(ratios):.2f}x | {errors} |"
        )
    return "\n".join(lines)


def precision() -> str | None:
    """The errors of the convolutions' tiers, the larger over the shapes."""
    record = _record("cpu", "conv_precision.json")
    if record is None:
        return None
    worst: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in record["rows"]:
        errors = worst[row["op"], row["result"]]
        for who in TIERS:
            errors[who] = max(errors[who], row[who])
    lines = ["| op | result | high | highest | eager PyTorch |", "|---|---|---|---|---|"]
    for (op, result), errors in worst.items():
        figures = " | ".join(f"{errors[who]:.1e}" for who in TIERS)
        lines.append(f"| `{op}` | {result} | {figures} |")
    return "\n".join(lines)


def models(machine: str = "cpu") -> str | None:
    """Training steps on CPU."""
    record = _record(machine, "models.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], "the fastest of the others"),
        "",
        "| training step | eager NCHW | eager channels_last | torch.compile | ours | speed-up "
        "| error of gradients, ours | eager |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"models.json: {row['model']}: {row['wrong']}")
        sides = ("eager_nchw", "eager_channels_last", "compile", "ours")
        times = " | ".join(_milliseconds(row[f"{side}_us"]) for side in sides)
        errors = " | ".join(f"{row[who]:.1e}" for who in ERRORS)
        lines.append(
            f"| {row['model']}, batch {row['batch']} | {times} | **{row['ratio']:.2f}x** "
            f"| {errors} |"
        )
    return "\n".join(lines)


PEERS = {
    "eager_channels_last": "channels_last",
    "compile": "compile",
    "onnxruntime": "ORT",
    "openvino": "OpenVINO",
    "mnn": "MNN",
    "ncnn": "ncnn",
}


def autoencoders() -> str | None:
    """Autoencoders of latent diffusion on CPU: speed-ups over eager NCHW."""
    record = _record("cpu", "autoencoders.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], "eager PyTorch in NCHW"),
        "",
        f"| work | eager NCHW | {' | '.join(PEERS.values())} | ours "
        "| ours over the faster eager | error, ours | eager | MNN |",
        "|---" * (len(PEERS) + 7) + "|",
    ]
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"autoencoders.json: {row['model']}: {row['wrong']}")
        eager = row["eager_nchw_us"]
        times = (row.get(f"{who}_us") for who in (*PEERS, "ours"))
        gains = " | ".join("-" if time is None else f"{eager / time:.2f}x" for time in times)
        errors = [row["error"], row["eager_error"], row["errors"].get("mnn")]
        cells = " | ".join("-" if error is None else f"{error:.1e}" for error in errors)
        lines.append(
            f"| {row['model']} | {_milliseconds(eager)} | {gains} | **{row['ratio']:.2f}x** "
            f"| {cells} |"
        )
    return "\n".join(lines)


def gpu() -> str:
    """The goals of the GPU suite on each card."""
    tables = []
    for path in sorted(RESULTS.glob("*/gpu_suite.json")):
        record = json.loads(path.read_text())
        environment = record["phases"].get("environment", {}).get("rows", [])
        found = next((row for row in environment if row["name"] == "machine"), None)
        if found is None:
            raise ValueError(f"{path}: it does not say of which machine it is")
        lines = [
            f"{found['gpu']}, CUDA {found['cuda']}, torch {found['torch']}, Triton "
            f"{found['triton']}, bfloat16, commit {record['commit']}; medians of one run.",
            "",
            "| goal | asked | measured | met |",
            "|---|---|---|---|",
        ]
        for goal in record["goals"]:
            unit = f" {goal['unit']}" if goal["unit"] else ""
            bound = "at most" if goal["at"] == "most" else "at least"
            asked, measured = (_figure(goal[key], unit) for key in ("must", "measured"))
            met = {True: "yes", False: "no", None: goal["why"] or "-"}[goal["met"]]
            lines.append(f"| {goal['goal']} | {bound} {asked} | **{measured}** | {met} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) or "No card was measured yet."


def mnist() -> str | None:
    """The published MNIST figures beside ours."""
    record = _record("mnist_published.json")
    if record is None:
        return None
    last = record["epochs"][-1]
    published = record["published"]
    return "\n".join(
        [
            "| full MNIST, 784-400-20, 10 epochs | published | here |",
            "|---|---|---|",
            *(
                f"| {part} loss per image | {published[part][0]} to {published[part][1]} "
                f"| {last[part]:.2f} |"
                for part in ("train", "test")
            ),
        ]
    )


def _record(*path: str) -> dict[str, Any] | None:
    """What was measured; None where nothing is committed yet."""
    file = RESULTS.joinpath(*path)
    return json.loads(file.read_text()) if file.exists() else None


def _machine(machine: dict[str, Any], others: str) -> str:
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['cpu_capability']}, torch "
        f"{machine['torch']}, float32; speed-up over {others}, interleaved medians."
    )


def _figure(value: float | str | None, unit: str) -> str:
    # The record has a NaN as its name.
    return "-" if value is None else f"{float(value):.4g}{unit}"


def _milliseconds(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:.1f} ms"


TABLES: dict[str, dict[str, Callable[[], str | None]]] = {
    "README.md": {
        "latent": latent,
        "conv": conv,
        "models": models,
        "autoencoders": autoencoders,
        "gpu": gpu,
        "mnist": mnist,
    },
    "docs/convolutions.md": {"precision": precision},
    "docs/avx512.md": {
        table.__name__: functools.partial(table, "cpu-avx512") for table in (latent, conv, models)
    },
}


def render(text: str, file: str = "README.md") -> str:
    """``text`` of ``file`` with every table replaced; one without its record is empty."""
    for name, table in TABLES[file].items():
        begin, end = f"<!-- table:{name} -->", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{file}: no table named {name}")
        lines = table()
        replacement = f"{begin}\n{end}" if lines is None else f"{begin}\n{lines}\n{end}"
        text = pattern.sub(lambda _, new=replacement: new, text, count=1)
    return text


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if not current")
    check = parser.parse_args().check
    stale = 0
    for file in TABLES:
        path = ROOT / file
        text = path.read_text()
        current = render(text, file)
        if check and current != text:
            sys.stderr.write(f"{file} is not current: run `make readme`\n")
            stale = 1
        elif not check:
            path.write_text(current)
    return stale


if __name__ == "__main__":
    sys.exit(main())
