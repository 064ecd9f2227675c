"""The rules of ARCHITECTURE.md, executed."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import vaekernels as vk
from vaekernels import _extension, cases
from vaekernels.ops._define import DEFINITIONS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vaekernels"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in SOURCES
}

# What each part may import of ours; imports go one way.
FOUNDATION = {"_extension", "reference", "registry"}
OPS = FOUNDATION | {"ops"}
LAYERS = {
    "reference": {"reference"},
    "triton": {"triton"},
    "_extension": {"ops"},  # loading the library needs the schemas; imported when it loads
    "registry": FOUNDATION | {"triton", "_extension"},
    "ops": OPS,
    "distributions": OPS,
    "graphs": OPS | {"structures"},
    "structures": set(),
    "guard": {"nonfinite", "structures"},
    "nonfinite": set(),
    "atomic": set(),
    "cases": OPS | {"cases"},
    "plain_layers": set(),
    "nn": OPS | {"nn", "plain_layers"},
    "models": OPS | {"models", "nn", "distributions", "atomic", "guard"},
    "machine": FOUNDATION | {"machine"},
    "acceleration": OPS | {"acceleration", "ways", "guard", "structures", "plain_layers"},
    "introspection": OPS | {"machine"},
    "explanation": OPS | {"acceleration", "ways"},
    "ways": OPS | {"triton"},
    "bench": OPS
    | {"bench", "cases", "models", "distributions", "atomic", "machine", "explanation"}
    | {"acceleration"},
    "training": OPS | {"training", "models", "distributions", "atomic", "nonfinite"},
    "tuning": OPS | {"triton", "models", "nn", "atomic"},
    "pictures": {"atomic"},
    "plots": {"atomic", "pictures"},
}
# Top of the house: may import anything but tests and benchmarks.
TOP = {"cli", "demo", "__init__"}


def _imports(path: Path) -> set[str]:
    """First part below ``vaekernels`` of every import of ours, lazy ones included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            parts = node.module.split(".")
            if parts[0] == "vaekernels":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
            assert parts[0] not in ("tests", "benchmarks"), path
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "vaekernels" and len(parts) > 1:
                    found.add(parts[1])
    return {
        name for name in found if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in TOP or part in ("_build", "__main__"):
        return
    assert part in LAYERS, f"{part}: say in LAYERS what it may import"
    assert _imports(path) <= LAYERS[part]


@pytest.mark.parametrize("op", DEFINITIONS)
def test_every_op_has_its_files(op: str) -> None:
    for folder in ("reference", "ops"):
        assert (PACKAGE / folder / f"{op}.py").exists()
    assert (PACKAGE / "triton" / f"{op}.py").exists() == ("triton" in DEFINITIONS[op].backends)
    assert op == "randn" or op in cases.ALL
    sources = " ".join(p.name for p in (ROOT / "csrc").rglob("*"))
    assert re.search(rf"\b{op}\.(h|cpp)\b", sources)


@pytest.mark.parametrize("op", DEFINITIONS)
def test_an_op_has_one_name_in_every_layer(op: str) -> None:
    assert callable(getattr(vk, op))
    assert callable(getattr(importlib.import_module(f"vaekernels.reference.{op}"), op))
    for namespace in DEFINITIONS[op].namespaces:
        schema = getattr(getattr(torch.ops, namespace), op).default._schema
        assert schema.name == f"{namespace}::{op}"
    reference = inspect.signature(
        importlib.import_module(f"vaekernels.reference.{op}").__dict__[op]
    )
    assert list(reference.parameters) == [a.name for a in schema.arguments]


@pytest.mark.skipif(bool(_extension.refusals()), reason="built without the C++ extension")
@pytest.mark.parametrize("op", DEFINITIONS)
def test_the_extension_registers_what_is_declared(op: str) -> None:
    _extension.load()
    keys = ("CPU",) if DEFINITIONS[op].backward_schema is None else ("CPU", "Autograd")
    for key in keys:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vaekernels::{op}", key)


@pytest.mark.parametrize("op", DEFINITIONS)
def test_public_docstrings_have_their_sections(op: str) -> None:
    text = inspect.getdoc(getattr(vk, op)) or ""
    for section in (
        ".. math::",
        "Equivalent PyTorch",
        "Args:",
        "Returns:",
        "Raises:",
        "Precision:",
        "Paper:",
    ):
        assert section in text, section
    for parameter in inspect.signature(getattr(vk, op)).parameters:
        assert re.search(rf"^\s+{parameter}:", text, re.MULTILINE), parameter


def _tracked(*suffixes: str) -> list[Path]:
    folders = ("csrc", "vaekernels", "tests", "benchmarks")
    return [p for f in folders for p in sorted((ROOT / f).rglob("*")) if p.suffix in suffixes]


def test_no_file_is_much_above_400_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): lines
        for p in _tracked(".py", ".cpp", ".cu", ".h", ".cuh")
        if (lines := len(p.read_text().splitlines())) > 420
    }
    assert not long


# What must not be written, and the files that are the place for it.
BANS = {
    r"globals\(\)\[": (),
    r"except:": (),
    r"except Exception:\s*\n\s*pass": (),
    r"os\.environ": ("registry.py", "training/distributed.py", "triton/conv/table.py"),
    r"sys\.path\b": (),
    r"torch\.compiler\.disable": (),
    r"weights_only=False|import pickle|pickle\.load": (),
    r"\bTODO\b|\bFIXME\b": (),
}


@pytest.mark.parametrize("ban", BANS)
def test_bans(ban: str) -> None:
    for path in SOURCES:
        if str(path.relative_to(PACKAGE)) not in BANS[ban]:
            assert not re.search(ban, path.read_text()), path


def test_no_fast_math_and_no_native_flags() -> None:
    for path in (
        *_tracked(".cpp", ".cu", ".h", ".cuh"),
        ROOT / "CMakeLists.txt",
        ROOT / "setup.py",
    ):
        assert not re.search(r"-march=native|-ffast-math|--use_fast_math", path.read_text()), path


@pytest.mark.parametrize(
    "name", ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
)
def test_the_house_has_its_papers(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500
