"""Plant mistakes one at a time in a copy of the tree, and count those that no test notices.

``python -m tests.mutants.run --count 40`` draws a seeded sample of mistakes in Python (cosmic-ray's
operators, and keyword arguments that are dropped); ``--cpp`` applies the patches in ``cpp/``, each
with a build. What was caught is kept in ``build/mutants``: the same command goes on where it was
interrupted, and tries again what survived. ``--json`` writes the outcome; the reasons that stand
there for survivors are kept. The exit code is 1 if less than 90% are caught.
"""

from __future__ import annotations

import argparse
import difflib
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from tqdm import tqdm

from tests.mutants.coverage import covering
from tests.mutants.python import mistake

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
LEAST = 0.9
_COPIED = (
    "vaekernels",
    "tests",
    "benchmarks",
    "csrc",
    "CMakeLists.txt",
    "setup.py",
    "build_backend.py",
)
_COPIED += ("pyproject.toml", "README.md", "ARCHITECTURE.md", "docs", "Makefile", "LICENSE")
_SKIPPED = ("vaekernels/_build.py",)


@dataclass(frozen=True)
class Mutant:
    """One mistake: the file, its difference, and the tests that should notice it."""

    file: str
    diff: str
    tests: tuple[str, ...]


def python_mutants(count: int, seed: int, only: Sequence[str]) -> Iterator[tuple[Mutant, str]]:
    """``count`` mistakes with the file's new content; longer files have more of them."""
    files = [
        path
        for path in sorted((ROOT / "vaekernels").rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in _SKIPPED
        and any(fnmatch(path.relative_to(ROOT).as_posix(), pattern) for pattern in only)
        and path.name != "__init__.py"
    ]
    if not files:
        raise SystemExit(f"--only {' '.join(only)}: no file of the package fits")
    sources = {path: path.read_text() for path in files}
    drawn = random.Random(seed).choices(files, [len(sources[path]) for path in files], k=count)
    for number, path in enumerate(drawn):
        # One of its own for each: a file that changes leaves the mistakes in others as they are.
        chance = random.Random(f"{seed} {number}")
        mutant = mistake(sources[path], chance)
        if mutant is None:
            continue
        name = path.relative_to(ROOT).as_posix()
        diff = "".join(
            difflib.unified_diff(
                sources[path].splitlines(True), mutant.splitlines(True), name, name, n=1
            )
        )
        yield Mutant(name, diff, tuple(covering(name, ROOT))), mutant


def cpp_mutants() -> Iterator[Mutant]:
    """The patches of ``cpp/``; the first line of each names the tests."""
    for patch in sorted((Path(__file__).parent / "cpp").glob("*.patch")):
        text = patch.read_text()
        yield Mutant(
            patch.name, text, tuple(text.split("\n", 1)[0].removeprefix("tests: ").split())
        )


def fresh_tree(name: str) -> Path:
    """A copy of what the tests need, without earlier mistakes; what was built in it stays."""
    tree = WORK / name
    for part in _COPIED:
        source, target = ROOT / part, tree / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(
                source, target, dirs_exist_ok=True, ignore=ignored, copy_function=_copy_changed
            )
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_changed(source, target)
    return tree


def _copy_changed(source: str | Path, target: str | Path) -> None:
    """A copy that is as new as it is: a build compares times."""
    if not Path(target).exists() or not filecmp.cmp(source, target, shallow=False):
        shutil.copyfile(source, target)


def environment(tree: Path) -> dict[str, str]:
    """Of a process that imports the package from ``tree``."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


def passes(tree: Path, tests: tuple[str, ...], limit: float) -> bool:
    """Whether ``tests`` pass within ``limit`` seconds; a mistake may never end."""
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*words, *tests],
        cwd=tree,
        env=environment(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def build(tree: Path) -> bool:
    """Whether the extension of ``tree`` builds."""
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=tree, env={**environment(tree), "PATH": path}, capture_output=True, check=False
    )
    return done.returncode == 0


class Limits:
    """How long tests may take: several times what they take without a mistake."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._seconds: dict[tuple[str, ...], float] = {}

    def of(self, tests: tuple[str, ...]) -> float:
        """Seconds; the tests run here once, and must pass."""
        if tests not in self._seconds:
            started = time.perf_counter()
            if not passes(self.tree, tests, 1800.0):
                raise SystemExit(f"{' '.join(tests)}: fails without any mistake")
            self._seconds[tests] = 60.0 + 4.0 * (time.perf_counter() - started)
        return self._seconds[tests]


def prepared(compiled: bool, selections: list[tuple[str, ...]]) -> Limits:
    """A tree for mistakes in C++ or in Python, with the limits of ``selections``.

    Those of C++ are taken before the first mistake, which stays in what was built until the next.
    """
    limits = Limits(fresh_tree("cpp" if compiled else "python"))
    if compiled and not build(limits.tree):
        raise SystemExit("the copy of the tree does not build")
    for tests in selections:
        limits.of(tests)
    return limits


def plant(mutant: Mutant, content: str | None, limits: Limits) -> bool:
    """Whether the tests notice ``mutant``."""
    tree, limit = limits.tree, limits.of(mutant.tests)
    if content is not None:
        target = tree / mutant.file
        original = target.read_text()
        target.write_text(content)
        try:
            return not passes(tree, mutant.tests, limit)
        finally:
            target.write_text(original)
    apply = ["git", "apply", "--directory", str(tree.relative_to(ROOT)), "-"]
    subprocess.run(apply, cwd=ROOT, input=mutant.diff, text=True, check=True)
    try:
        if not build(tree):
            raise SystemExit(f"{mutant.file}: does not compile")
        return not passes(tree, mutant.tests, limit)
    finally:
        subprocess.run([*apply, "--reverse"], cwd=ROOT, input=mutant.diff, text=True, check=True)


def main(arguments: list[str] | None = None) -> int:
    """Plant, print what survives, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.mutants.run")
    parser.add_argument("--count", type=int, default=40, help="mistakes in Python")
    parser.add_argument("--seed", type=int, default=0, help="decides which")
    parser.add_argument(
        "--only", nargs="+", default=["vaekernels/*.py"], help="patterns of the files"
    )
    parser.add_argument("--cpp", action="store_true", help="the patches of C++ as well")
    parser.add_argument("--json", type=Path, help="file for the outcome")
    options = parser.parse_args(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    record = WORK / f"seed-{options.seed}.jsonl"
    caught = set()
    if record.exists():
        caught = {tuple(json.loads(line)) for line in record.read_text().splitlines()}
    work: list[tuple[Mutant, str | None]] = [
        *python_mutants(options.count, options.seed, options.only)
    ]
    if options.cpp:
        work += [(mutant, None) for mutant in cpp_mutants()]
    if not work:
        raise SystemExit("there was no mistake to plant")
    trees: dict[bool, Limits] = {}
    tried: list[Mutant] = []
    survived: list[Mutant] = []
    with tqdm(work, unit=" mistakes") as bar, record.open("a") as file:
        for mutant, content in bar:
            bar.set_description(mutant.file)
            tried.append(mutant)
            if (mutant.file, mutant.diff) not in caught:
                compiled = content is None
                if compiled not in trees:
                    patches = [each.tests for each, of in work if of is None]
                    trees[compiled] = prepared(compiled, patches if compiled else [])
                if plant(mutant, content, trees[compiled]):
                    file.write(json.dumps([mutant.file, mutant.diff]) + "\n")
                    file.flush()
                else:
                    survived.append(mutant)
                    bar.write(f"survived:\n{mutant.diff}")
            if options.json is not None:
                write_outcome(options, tried, survived)
    share = 1.0 - len(survived) / len(work)
    print(f"{len(work) - len(survived)} of {len(work)} mistakes were caught: {share:.0%}")
    for mutant in survived:
        print(f"\nsurvived {' '.join(mutant.tests)}:\n{mutant.diff}")
    return int(share < LEAST)


def write_outcome(
    options: argparse.Namespace, planted: list[Mutant], survived: list[Mutant]
) -> None:
    """What was planted and what survived, with the reasons that the file has for it."""
    path: Path = options.json
    before = json.loads(path.read_text())["survivors"] if path.exists() else []
    reasons = {(each["file"], each["diff"]): each["reason"] for each in before}
    outcome = {
        "seed": options.seed,
        "files": options.only,
        "planted": len(planted),
        "caught": len(planted) - len(survived),
        "survivors": [
            {**asdict(mutant), "reason": reasons.get((mutant.file, mutant.diff), "")}
            for mutant in survived
        ],
        "mistakes": [asdict(mutant) for mutant in planted],
    }
    path.write_text(json.dumps(outcome, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
