"""The mistakes that ``make mutants`` plants: they change what runs, and name their tests."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutants import python
from tests.mutants.coverage import covering
from tests.mutants.run import ROOT, cpp_mutants

SOURCE = '''
def scaled(x: int | None, *, by: float = 2.0) -> float | None:
    """Not 3 - 4."""
    if x is None:
        return None
    return clip(x * by, low=0.0, high=1.0)
'''


def test_a_mistake_changes_what_runs():
    pytest.importorskip("cosmic_ray")
    mutants = {python.mistake(SOURCE, random.Random(seed)) for seed in range(60)}
    assert len(mutants) > 10
    for mutant in mutants:
        compile(mutant, "mutant", "exec")
        lines = list(zip(SOURCE.splitlines(), mutant.splitlines(), strict=True))
        changed = [number for number, (before, after) in enumerate(lines) if before != after]
        assert len(changed) == 1
        assert changed[0] != 2  # the docstring
        assert "int | None" in mutant  # annotations
    dropped = [mutant for mutant in mutants if "low=" not in mutant or "high=" not in mutant]
    assert len(dropped) == 2


def test_texts_are_left_alone():
    pytest.importorskip("cosmic_ray")
    source = """
@dataclass(frozen=True)
class Halves:
    '''1 + 2'''

    size: int | None

    def named(self, parts, *, most: int | None = None):
        return self

    def check(self, *parts, most=option(help="1", stacklevel=2)):
        warnings.warn(f"{1 + 2} of {self.size * 3}", Unusual, stacklevel=2)
        text = f"part{'s' if len(parts) > 1 else ''}"
        raise ValueError(f"size: expected {most - 1}; got {join(parts, end=1)}")
"""
    assert all(python.mistake(source, random.Random(seed)) is None for seed in range(20))


def test_the_same_seed_makes_the_same_mistakes():
    pytest.importorskip("cosmic_ray")
    first, second = ([python.mistake(SOURCE, random.Random(s)) for s in range(5)] for _ in "ab")
    assert first == second


def test_dropped_keywords_of_text_that_is_not_ascii():
    source = "f('äö', a=1,\n  b='ü', c=3)\n"
    mutants = set(python._without_keyword(source, random.Random(0)))
    assert mutants == {
        "f('äö', \n  b='ü', c=3)\n",
        "f('äö', a=1,\n   c=3)\n",
        "f('äö', a=1,\n  b='ü', )\n",
    }


def test_every_file_has_tests_that_exist():
    for path in (ROOT / "vaekernels").rglob("*.py"):
        file = path.relative_to(ROOT).as_posix()
        if path.name not in ("__init__.py", "_build.py"):
            assert all((ROOT / test).exists() for test in covering(file, ROOT)), file


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("mutant", cpp_mutants(), ids=lambda mutant: mutant.file)
def test_patches_apply_and_name_tests(mutant):
    assert mutant.tests
    assert all((ROOT / test).exists() for test in mutant.tests)
    words = ["git", "apply", "--check", "-"]
    done = subprocess.run(
        words, cwd=ROOT, input=mutant.diff, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(ROOT / mutant.diff.split("+++ b/")[1].split()[0]).exists()
