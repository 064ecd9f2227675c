"""The layer rules of ARCHITECTURE.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import vaekernels as vk
from tests.ops import edges, oracle
from vaekernels.backends import extension
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench import op_inputs

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vaekernels"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in SOURCES
}

# Packages whose modules have rules of their own.
_SPLIT = ("backends", "runtime", "integrations", "utils")

# What each part may import of ours; imports go one way.
BACKENDS = {
    *("backends.definitions", "backends.extension", "backends.reference", "backends.registry"),
}
OPS = BACKENDS | {"ops"}
UTILS = {"utils.atomic_file", "utils.extras", "utils.fields", "utils.limits", "utils.tree"}
UTILS |= {"utils.image_grid", "utils.plots"}
LAYERS = {
    **dict.fromkeys(UTILS, UTILS),
    "backends.reference": {"backends.reference"},
    "backends.definitions": set(),
    "backends.extension": set(),
    "backends.triton": {"backends.triton", "backends.definitions"},
    "backends.registry": {"backends.definitions", "backends.extension", "backends.triton"},
    "ops": OPS,
    "distributions": OPS | {"distributions"},
    "objectives": OPS | {"objectives", "distributions", "utils.fields"},
    "runtime.cpu_info": OPS,
    "runtime.build_info": OPS | {"runtime.cpu_info"},
    "runtime.detect_nonfinite": set(),
    "runtime.nonfinite_policy": {"runtime.detect_nonfinite", "utils.tree"},
    "runtime.cuda_graphs": OPS | {"utils.tree"},
    "runtime.conv_algorithm": OPS | {"backends.triton"},
    "runtime.explain": OPS | {"integrations.accelerate", "runtime.conv_algorithm"},
    "runtime.conv_autotune": OPS | UTILS | {"backends.triton", "models", "nn"},
    "nn": OPS | {"nn"},
    "tiling": OPS | {"tiling", "nn"},
    "integrations.accelerate": OPS
    | {"integrations.accelerate", "nn", "utils.tree"}
    | {"runtime.conv_algorithm", "runtime.nonfinite_policy"},
    "models": OPS
    | UTILS
    | {"models", "nn", "distributions", "objectives", "tiling", "runtime.nonfinite_policy"},
    "data": UTILS | {"data"},
    "training": OPS
    | UTILS
    | {"training", "data", "models", "distributions", "objectives", "runtime.detect_nonfinite"},
    "bench": OPS
    | UTILS
    | {"bench", "models", "distributions", "integrations.accelerate"}
    | {"runtime.cpu_info", "runtime.explain"},
}
# The top layer may import anything but tests and benchmarks.
TOP = {"cli", "demo", "__init__", "__main__"}


def _part(module: str) -> str:
    """The key of ``LAYERS`` that ``module``, without the package's name, belongs to."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] in _SPLIT else 1])


def _exists(part: str) -> bool:
    path = PACKAGE / part.replace(".", "/")
    return path.exists() or path.with_suffix(".py").exists()


def _imports(path: Path) -> set[str]:
    """Parts of ours that a file imports, lazy imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            top, _, module = node.module.partition(".")
            assert top not in ("tests", "benchmarks"), path
            if top == "vaekernels":
                prefix = f"{module}." if module else ""
                found |= {_part(prefix + alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top, _, module = alias.name.partition(".")
                if top == "vaekernels" and module:
                    found.add(_part(module))
    return {part for part in found if _exists(part)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    part = _part(module)
    if part in TOP or part in (*_SPLIT, "_build"):
        return
    assert part in LAYERS, f"{part}: say in LAYERS what it may import"
    assert _imports(path) <= LAYERS[part]


@pytest.mark.parametrize("op", DEFINITIONS)
def test_every_op_has_its_files(op: str) -> None:
    for folder in ("backends/reference", "ops"):
        assert (PACKAGE / folder / f"{op}.py").exists()
    assert (PACKAGE / "backends/triton" / f"{op}.py").exists() == (
        "triton" in DEFINITIONS[op].backends
    )
    assert op == "randn" or op in op_inputs.ALL
    sources = [p.read_text() for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp")]
    assert any(f'"{op}"' in source for source in sources)
    if op in op_inputs.LATENT:
        assert op in oracle.KINDS
        assert op == "rsample_kl" or op in edges.PLAIN
        for test in ("cuda/test_cuda_latent.py", "triton/test_triton_latent.py"):
            assert f'    "{op}": (' in (ROOT / "tests/backends" / test).read_text(), test


@pytest.mark.parametrize("op", DEFINITIONS)
def test_an_op_has_one_name_in_every_layer(op: str) -> None:
    assert callable(getattr(vk, op))
    assert {op} <= set(vk.ops.__all__) <= set(vk.__all__)
    module = importlib.import_module(f"vaekernels.backends.reference.{op}")
    assert DEFINITIONS[op].reference is getattr(module, op)
    for namespace in DEFINITIONS[op].namespaces:
        schema = getattr(getattr(torch.ops, namespace), op).default._schema
        assert schema.name == f"{namespace}::{op}"
    reference = inspect.signature(DEFINITIONS[op].reference)
    assert list(reference.parameters) == [a.name for a in schema.arguments]


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
@pytest.mark.parametrize("op", DEFINITIONS)
def test_the_extension_registers_what_is_declared(op: str) -> None:
    extension.load()
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
    r"os\.environ": (
        "backends/registry.py",
        "training/distributed.py",
        "backends/triton/conv/autotune_table.py",
    ),
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


FACTORIES = {"tensor", "zeros", "ones", "full", "arange", "empty", "linspace", "eye", "randint"}
FACTORIES |= {"randn", "rand", "randperm", "scalar_tensor", "as_tensor", "asarray"}
# What makes tensors of its own, for whoever calls it: where torch's default device says.
MAKERS = ("bench", "cli", "data", "demo", "training")


def test_constants_have_a_device() -> None:
    """A default device, as in ``with torch.device("meta")``, must not move them."""
    for path in SOURCES:
        if path.relative_to(PACKAGE).parts[0] in MAKERS:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Call]
        # Parameters are where the default device is, as those of torch's layers.
        parameters = {
            id(argument)
            for call in calls
            if ast.unparse(call.func) == "nn.Parameter"
            for argument in call.args
        }
        for call in calls:
            module, _, name = ast.unparse(call.func).rpartition(".")
            if module == "torch" and name in FACTORIES and id(call) not in parameters:
                assert any(k.arg == "device" for k in call.keywords), (path, call.lineno)


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
def test_project_documents_exist(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500


def test_documents_are_short() -> None:
    limits = {ROOT / "ARCHITECTURE.md": 120, ROOT / "README.md": 150}
    limits |= dict.fromkeys((ROOT / "docs" / "design").glob("*.md"), 150)
    assert len(limits) > 6
    assert not [path for path, most in limits.items() if path.read_text().count("\n") > most]


LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_resolve(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not missing
