"""The process of one phase: each row is written to a file at once, so that a kill loses none."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu import record
from benchmarks.gpu.phase import Context


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="of the phase")
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="file for a line of JSON per row")
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args(arguments)
    context = Context(options.device, options.seconds, options.record)
    with options.rows.open("a") as file:
        for row in importlib.import_module(options.module).run(context):
            file.write(record.dumps(row) + "\n")
            file.flush()
            print(f"  {record.line(row)}", flush=True)


if __name__ == "__main__":
    main()
