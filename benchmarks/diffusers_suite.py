"""diffusers' own tests of its autoencoders, plain and with every model accelerated.

    python benchmarks/diffusers_suite.py CHECKOUT [--json FILE] [-k EXPRESSION] [--tests FOLDER]

CHECKOUT is one of diffusers with its ``tests``; where it has no ``src``, the installed package is
tested. The exit code is 1 where a test passes plain and does not accelerated. This file is pytest's
plugin too: it accelerates each autoencoder when its constructor is done, and writes outcomes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/models/autoencoders"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Pytest's: the options of the plugin."""
    parser.addoption("--vk-accelerate", action="store_true", help="accelerate every autoencoder")
    parser.addoption("--vk-outcomes", help="a JSON file to write: test -> outcome")


def pytest_configure(config: pytest.Config) -> None:
    """Pytest's: before the tests are collected."""
    if config.getoption("--vk-accelerate"):
        from diffusers.models import autoencoders
        from diffusers.models.modeling_utils import ModelMixin

        for kind in {id(kind): kind for kind in vars(autoencoders).values()}.values():
            if isinstance(kind, type) and issubclass(kind, ModelMixin):
                kind.__init__ = _accelerating(kind, kind.__init__)  # type: ignore[method-assign]
    outcomes = config.getoption("--vk-outcomes")
    if outcomes:
        config.pluginmanager.register(_Outcomes(Path(outcomes)))


def _accelerating(kind: type, construct: Callable[..., None]) -> Callable[..., None]:
    import vaekernels as vk

    @functools.wraps(construct)  # diffusers reads the parameters
    def constructed(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        if type(self) is kind:  # the outermost constructor
            vk.accelerate(self)

    return constructed


class _Outcomes:
    """Notes what became of each test."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pytest's: a test was set up, called or torn down."""
        if report.when == "call" or report.outcome != "passed":
            lines = str(report.longrepr or "").strip().splitlines()
            message = lines[-1][:300] if report.outcome == "failed" and lines else ""
            self._found[report.nodeid] = report.outcome, message

    def pytest_sessionfinish(self) -> None:
        """Pytest's: all tests are done."""
        self._path.write_text(json.dumps(self._found))


def outcomes(checkout: Path, options: list[str]) -> dict[str, tuple[str, str]]:
    """Test -> its outcome and the error.

    Args:
        checkout: of diffusers.
        options: of pytest and of the plugin.

    Raises:
        RuntimeError: pytest ended without a result, as where the process died.
    """
    paths = [str(ROOT / "benchmarks"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.json"
        command = ["-m", "pytest", "-q", "--tb=line", "-p", "diffusers_suite"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--vk-outcomes={path}", *options]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=sys.stderr,
            check=False,
        )
        if not path.exists():
            raise RuntimeError(f"pytest ended with {done.returncode} and without a result")
        return {
            test: (outcome, why) for test, (outcome, why) in json.loads(path.read_text()).items()
        }


def compare(
    plain: dict[str, tuple[str, str]], accelerated: dict[str, tuple[str, str]]
) -> dict[str, str]:
    """The tests that pass plain and not accelerated, and what became of them."""
    return {
        test: ": ".join(filter(None, accelerated.get(test, ("missing", ""))))
        for test, (outcome, _) in plain.items()
        if outcome == "passed" and accelerated.get(test, ("missing", ""))[0] != "passed"
    }


def main() -> int:
    """Run both, print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--json", type=Path, help="write the outcome there")
    parser.add_argument("--tests", nargs="*", default=[TESTS], help=f"default: {TESTS}")
    parser.add_argument("-k", default="", help="as pytest has it")
    arguments = parser.parse_args()
    options = [*arguments.tests, *(["-k", arguments.k] if arguments.k else [])]
    plain = outcomes(arguments.checkout, options)
    accelerated = outcomes(arguments.checkout, ["--vk-accelerate", *options])
    # What does not repeat is not ours to judge: those that differ are run once more, both ways.
    faults = compare(plain, accelerated)
    if faults:
        again = list(faults)
        faults = compare(
            outcomes(arguments.checkout, again),
            outcomes(arguments.checkout, ["--vk-accelerate", *again]),
        )
    result = {
        "diffusers": metadata.version("diffusers"),
        "torch": metadata.version("torch"),
        "tests": options,
        "plain": dict(Counter(outcome for outcome, _ in plain.values())),
        "accelerated": dict(Counter(outcome for outcome, _ in accelerated.values())),
        "only accelerated ones fail": faults,
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if arguments.json:
        arguments.json.write_text(text)
    return 1 if faults or not plain else 0


if __name__ == "__main__":
    sys.exit(main())
