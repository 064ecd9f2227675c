"""Every guarantee of docs/promises.md names existing tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_guarantee_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    guarantees = [row for row in rows if not row.startswith("| guarantee")]
    assert len(guarantees) > 20
    for row in guarantees:
        tests = TEST.findall(row)
        assert tests, f"no test named: {row}"
        for file, name in tests:
            path = ROOT / file
            assert path.is_file(), f"{file} does not exist: {row}"
            assert f"def {name}(" in path.read_text(), f"{file} has no {name}: {row}"
