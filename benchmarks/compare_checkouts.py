"""Time the same work in two built checkouts, interleaved: the cost or gain of a change.

    python benchmarks/compare_checkouts.py ../before . --suite conv --json conv.json

Each checkout runs its own copy of this file in a process, which waits while the other one
computes. Only this package's side of each row of ``vaekernels bench`` is timed; of each round the
fastest call counts, and the ratio of a row is the median over the rounds of before / after: above
1, the change is faster.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def _calls(suite: str) -> Iterator[tuple[str, str, int | None, Callable[[], Callable[[], object]]]]:
    """Group, name, threads and a function that returns the timed call, of every row."""
    from vaekernels.bench.suites import SUITES

    for work in SUITES[suite].works():
        yield work.group, work.name, getattr(work, "threads", None), work.our_call


def _serve(suite: str, seconds: float) -> None:
    """Print the fastest call's seconds for each line of input, the number of a row."""
    import torch

    rows = list(_calls(suite))
    threads = torch.get_num_threads()
    print(json.dumps([row[:2] for row in rows]), flush=True)
    at, call = -1, None
    for line in sys.stdin:
        if int(line) != at:
            at = int(line)
            call = None  # free the memory of the previous row
            torch.set_num_threads(rows[at][2] or threads)
            call = rows[at][3]()
            call()
        assert call is not None
        times, end = [], time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(min(times), flush=True)


def _start(checkout: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    script = checkout / "benchmarks" / Path(__file__).name
    command = [
        sys.executable,
        script.resolve(),
        "--serve",
        options.suite,
        "--seconds",
        options.seconds,
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(part) for part in command], env=environment, stdin=pipe, stdout=pipe, text=True
    )


def _time(process: subprocess.Popen[str], row: int) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{row}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    processes = [_start(Path(c), options) for c in (options.before, options.after)]
    lists = [json.loads(p.stdout.readline()) for p in processes if p.stdout is not None]
    if lists[0] != lists[1]:
        raise SystemExit("compare_checkouts: the checkouts do not measure the same rows")
    rows, groups = [], defaultdict(list)
    for number, (group, name) in enumerate(lists[0]):
        pairs = []
        for turn in range(options.rounds):
            order = processes if turn % 2 == 0 else processes[::-1]
            times = {id(process): _time(process, number) for process in order}
            pairs.append([times[id(process)] for process in processes])
        ratio = statistics.median(before / after for before, after in pairs)
        groups[group].append(ratio)
        microseconds = [1e6 * min(pair[side] for pair in pairs) for side in (0, 1)]
        rows.append({"group": group, "row": name, "us": microseconds, "ratio": ratio})
        print(f"{ratio:6.3f}  {name}", flush=True)
    for process in processes:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    means = {g: math.exp(statistics.mean(map(math.log, ratios))) for g, ratios in groups.items()}
    for group, mean in means.items():
        print(f"{mean:6.3f}  geometric mean of {group}")
    return {"suite": options.suite, "groups": means, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", nargs="?")
    parser.add_argument("after", nargs="?")
    parser.add_argument(
        "--suite", choices=("latent", "conv", "models", "autoencoders"), default="conv"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each checkout a round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        _serve(options.serve, options.seconds)
        return
    if options.after is None:
        parser.error("two checkouts are needed: before and after")
    result = _compare(options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
