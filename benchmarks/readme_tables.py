"""Write the README's tables of measured figures from the committed JSON.

``python benchmarks/readme_tables.py`` rewrites them; ``--check`` says whether they are current.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def latent() -> str:
    """The latent ops on CPU."""
    record = json.loads((RESULTS / "cpu" / "latent.json").read_text())
    lines = [
        _machine(record["machine"]),
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


def mnist() -> str:
    """The published MNIST figures beside ours."""
    record = json.loads((RESULTS / "mnist_published.json").read_text())
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


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['threads']} threads, {machine['cpu_capability']}, torch "
        f"{machine['torch']}, float32; speed-up over eager PyTorch, interleaved medians."
    )


TABLES: dict[str, Callable[[], str]] = {"latent": latent, "mnist": mnist}


def render(text: str) -> str:
    """``text`` with every table replaced."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table:{name} -->", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md: no table named {name}")
        replacement = f"{begin}\n{table()}\n{end}"
        text = pattern.sub(lambda _, new=replacement: new, text, count=1)
    return text


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if not current")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    text = path.read_text()
    current = render(text)
    if check:
        if current != text:
            sys.stderr.write("README.md is not current: run `make readme`\n")
        return int(current != text)
    path.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
