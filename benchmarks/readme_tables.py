"""Generate the tables of measured figures in README and docs from the committed JSON.

``python benchmarks/readme_tables.py`` rewrites them; ``--check`` exits with 1 if one is
outdated.
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

# What the speed-ups of a record are relative to.
BASELINES = {
    "latent": "eager PyTorch",
    "conv": "the faster of eager PyTorch in NCHW and channels_last",
    "models": "the fastest of eager PyTorch in NCHW and channels_last, and torch.compile",
    "autoencoders": "eager PyTorch in NCHW",
}
# Figures of the README: what is measured -> the groups or rows of the records.
HEADLINE_CONVOLUTIONS = {
    "3x3 convolutions": "conv3x3",
    "nearest-2x upsampling + 3x3 convolution": "upsample",
    "GroupNorm + SiLU, forward and backward": "norm-training",
}
HEADLINE_AUTOENCODERS = (
    "TAEF2 decode 512 px",
    "AutoencoderKL decode 256 px",
    "AutoencoderKL training step, batch 4, 64 px",
)


def headline() -> str | None:
    """The figures of the README, a selection of the tables in docs/benchmarks.md."""
    names = ("latent", "conv", "models", "autoencoders")
    records = {name: _record("cpu", f"{name}.json") for name in names}
    present = {name: record for name, record in records.items() if record is not None}
    if len(present) < len(names):
        return None
    machines = {_hardware(record["machine"]) for record in present.values()}
    if len(machines) > 1:
        raise ValueError(f"the records are of different machines: {sorted(machines)}")
    means = present["latent"]["geometric_means"]
    rows: list[tuple[str, float, str]] = [
        (f"{text}, forward and backward", means[f"{group} forward+backward"], "latent")
        for group, text in (("rsample_kl", "`vk.rsample_kl`"), ("losses", "KL and likelihoods"))
    ]
    for text, group in HEADLINE_CONVOLUTIONS.items():
        ratios = [row["ratio"] for row in present["conv"]["rows"] if row["group"] == group]
        rows.append((text, statistics.geometric_mean(ratios), "conv"))
    for row in present["models"]["rows"]:
        text = f"training step: {row['model']}, batch {row['batch']}"
        rows.append((text, row["ratio"], "models"))
    autoencoders = {row["model"]: row["ratio"] for row in present["autoencoders"]["rows"]}
    rows += [(text, autoencoders[text], "conv") for text in HEADLINE_AUTOENCODERS]
    return "\n".join(
        [
            f"{machines.pop()}, float32; interleaved medians, geometric means over shapes.",
            "",
            "| workload | speed-up | over |",
            "|---|---|---|",
            *(f"| {text} | **{ratio:.2f}x** | {BASELINES[name]} |" for text, ratio, name in rows),
        ]
    )


def latent(machine: str = "cpu") -> str | None:
    """The sampling and loss ops on CPU."""
    record = _record(machine, "latent.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], BASELINES["latent"]),
        "",
        "| op | shape | forward | forward + backward | peak memory, eager / vaekernels |",
        "|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in record["rows"]:
        rows[row["op"], " x ".join(map(str, row["shape"]))][row["direction"]] = row
    for (op, shape), by_direction in rows.items():
        both = by_direction["forward+backward"]
        peaks = (both[f"{side}_peak_bytes"] / 2**20 for side in ("eager", "ours"))
        memory = " / ".join(f"{peak:.2f}" for peak in peaks)
        ratios = " | ".join(f"{row['ratio']:.2f}x" for row in by_direction.values())
        lines.append(f"| `{op}` | {shape} | {ratios} | {memory} MiB |")
    for group in ("rsample_kl", "losses"):
        means = record["geometric_means"]
        cells = [f"**{means[f'{group} {d}']:.2f}x**" for d in ("forward", "forward+backward")]
        name = "`rsample_kl`" if group == "rsample_kl" else "the four losses"
        lines.append(f"| {name} | geometric mean | {cells[0]} | {cells[1]} | |")
    return "\n".join(lines)


# Group of ``bench conv`` -> its description.
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
    """The convolutions on CPU, one row per group."""
    record = _record(machine, "conv.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], BASELINES["conv"]),
        "",
        "| workload | rows | speed-up | from | to | error, vaekernels | error, eager |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"conv.json: {row['op']} {row['case']}: {row['wrong']}")
        groups[row["group"]].append(row)
    for group, rows in groups.items():
        ratios = [row["ratio"] for row in rows]
        errors = " | ".join(f"{max(row[key] for row in rows):.1e}" for key in ERRORS)
        lines.append(
            f"| {CONV[group]} | {len(rows)} | **{statistics.geometric_mean(ratios):.2f}x** "
            f"| {min(ratios):.2f}x | {max(ratios):.2f}x | {errors} |"
        )
    return "\n".join(lines)


def precision() -> str | None:
    """The errors of the convolution tiers, the largest over the shapes."""
    record = _record("cpu", "conv_precision.json")
    if record is None:
        return None
    worst: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in record["rows"]:
        errors = worst[row["op"], row["result"]]
        for tier in TIERS:
            errors[tier] = max(errors[tier], row[tier])
    lines = ["| op | result | high | highest | eager PyTorch |", "|---|---|---|---|---|"]
    for (op, result), errors in worst.items():
        figures = " | ".join(f"{errors[tier]:.1e}" for tier in TIERS)
        lines.append(f"| `{op}` | {result} | {figures} |")
    return "\n".join(lines)


def models(machine: str = "cpu") -> str | None:
    """Training steps on CPU."""
    record = _record(machine, "models.json")
    if record is None:
        return None
    lines = [
        _machine(record["machine"], BASELINES["models"]),
        "",
        "| training step | eager NCHW | eager channels_last | torch.compile | vaekernels "
        "| speed-up | error of gradients, vaekernels | eager |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"models.json: {row['model']}: {row['wrong']}")
        sides = ("eager_nchw", "eager_channels_last", "compile", "ours")
        times = " | ".join(_milliseconds(row[f"{side}_us"]) for side in sides)
        errors = " | ".join(f"{row[key]:.1e}" for key in ERRORS)
        lines.append(
            f"| {row['model']}, batch {row['batch']} | {times} | **{row['ratio']:.2f}x** "
            f"| {errors} |"
        )
    return "\n".join(lines)


COMPETITORS = {
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
        _machine(record["machine"], BASELINES["autoencoders"]),
        "",
        f"| workload | eager NCHW | {' | '.join(COMPETITORS.values())} | vaekernels "
        "| speed-up over the faster eager layout | error, vaekernels | eager | MNN |",
        "|---" * (len(COMPETITORS) + 7) + "|",
    ]
    for row in record["rows"]:
        if row["ratio"] is None:
            raise ValueError(f"autoencoders.json: {row['model']}: {row['wrong']}")
        eager = row["eager_nchw_us"]
        times = (row.get(f"{side}_us") for side in (*COMPETITORS, "ours"))
        gains = " | ".join("-" if time is None else f"{eager / time:.2f}x" for time in times)
        errors = [row["error"], row["eager_error"], row["errors"].get("mnn")]
        cells = " | ".join("-" if error is None else f"{error:.1e}" for error in errors)
        lines.append(
            f"| {row['model']} | {_milliseconds(eager)} | {gains} | **{row['ratio']:.2f}x** "
            f"| {cells} |"
        )
    return "\n".join(lines)


def gpu() -> str:
    """The targets of the GPU suite on each GPU."""
    tables = []
    for path in sorted(RESULTS.glob("*/gpu_suite.json")):
        record = json.loads(path.read_text())
        environment = record["phases"].get("environment", {}).get("rows", [])
        found = next((row for row in environment if row["name"] == "machine"), None)
        if found is None:
            raise ValueError(f"{path}: the environment phase has no machine")
        lines = [
            f"{found['gpu']}, CUDA {found['cuda']}, torch {found['torch']}, Triton "
            f"{found['triton']}, bfloat16, commit {record['commit']}; medians of one run.",
            "",
            "| target | required | measured | met |",
            "|---|---|---|---|",
        ]
        for goal in record["goals"]:
            unit = f" {goal['unit']}" if goal["unit"] else ""
            bound = "at most" if goal["at"] == "most" else "at least"
            required, measured = (_figure(goal[key], unit) for key in ("must", "measured"))
            met = {True: "yes", False: "no", None: goal["why"] or "-"}[goal["met"]]
            lines.append(f"| {goal['goal']} | {bound} {required} | **{measured}** | {met} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) or "No GPU has been measured yet."


def mnist() -> str | None:
    """The published MNIST figures and those of this package."""
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
    """A committed record; None if there is none."""
    file = RESULTS.joinpath(*path)
    return json.loads(file.read_text()) if file.exists() else None


def _hardware(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['cpu_capability']}, torch "
        f"{machine['torch']}"
    )


def _machine(machine: dict[str, Any], baseline: str) -> str:
    return f"{_hardware(machine)}, float32; speed-up over {baseline}, interleaved medians."


def _figure(value: float | str | None, unit: str) -> str:
    # Records store NaN as a string.
    return "-" if value is None else f"{float(value):.4g}{unit}"


def _milliseconds(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:.1f} ms"


TABLES: dict[str, dict[str, Callable[[], str | None]]] = {
    "README.md": {"headline": headline},
    "docs/benchmarks.md": {
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


def render(text: str, file: str) -> str:
    """``text`` of ``file`` with every table replaced; a table without its record is empty."""
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
    parser.add_argument("--check", action="store_true", help="exit with 1 if outdated")
    check = parser.parse_args().check
    stale = 0
    for file in TABLES:
        path = ROOT / file
        text = path.read_text()
        current = render(text, file)
        if check and current != text:
            sys.stderr.write(f"{file} is outdated: run `make readme`\n")
            stale = 1
        elif not check:
            path.write_text(current)
    return stale


if __name__ == "__main__":
    sys.exit(main())
