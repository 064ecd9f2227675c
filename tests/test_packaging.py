"""What an installation needs, what it says when something is missing, and what is published."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

import vaekernels as vk
from vaekernels.backends import extension, registry

ROOT = Path(__file__).parents[1]
OPTIONAL = {
    "PIL": "pillow",
    "diffusers": "diffusers",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "mlxtend": "mlxtend",
    "rich": "rich",
    "sklearn": "scikit-learn",
    "tqdm": "tqdm",
    "triton": "triton",
    "typer": "typer",
}
BLOCK = """
import sys
from importlib.machinery import PathFinder
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {names!r}:
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without()
"""
BUILD = {
    "extension": True,
    "cuda": True,
    "torch": str(torch.__version__),
    "python": platform.python_version(),
}


def _python(
    *arguments: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _without(names: list[str], code: str) -> subprocess.CompletedProcess:
    return _python("-c", BLOCK.format(names=sorted(names)) + code)


@pytest.fixture(scope="module")
def extras() -> dict[str, set[str]]:
    """The packages that each extra installs, those of the extras in it included."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 does not read TOML")
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        found = set()
        for requirement in listed[extra]:
            name, inner = re.match(r"([\w-]+)(?:\[(.*)\])?", requirement).groups()
            found |= {p for e in inner.split(",") for p in packages(e)} if inner else {name}
        return found

    return {extra: packages(extra) for extra in listed}


def test_the_core_needs_no_optional_package() -> None:
    backend = "reference" if extension.refusals() else "cpu"
    code = f"sys.argv[1:] = [{backend!r}]\nimport runpy\nrunpy.run_path('tests/smoke.py', {{}}, "
    result = _without(list(OPTIONAL), code + "'__main__')")
    assert result.returncode == 0, result.stderr
    assert "ops, models and accelerate run" in result.stdout


def test_every_module_names_the_missing_package_and_its_extra(extras: dict[str, set[str]]) -> None:
    code = """
import importlib, json, pkgutil
import vaekernels
errors = {}
def walk(folder, prefix):
    for module in pkgutil.iter_modules(folder, prefix):
        if module.name in ("vaekernels.backends.triton", "vaekernels._C"):
            continue
        try:
            found = importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            errors[module.name] = str(error)
        else:
            walk(getattr(found, "__path__", ()), module.name + ".")
walk(vaekernels.__path__, "vaekernels.")
print(json.dumps(errors))
"""
    result = _without(list(OPTIONAL), code)
    assert result.returncode == 0, result.stderr
    errors = json.loads(result.stdout)
    assert {"vaekernels.cli", "vaekernels.training", "vaekernels.demo"} <= errors.keys()
    for module, message in errors.items():
        found = re.search(r"needs the package ([\w-]+): pip install 'vaekernels\[(\w+)\]'", message)
        assert found, f"{module}: {message}"
        assert found[1] in extras[found[2]], f"{module}: {message}"
    core = ("nn", "models", "ops", "runtime", "tiling", "distributions", "integrations", "backends")
    assert not [m for m in errors if m.split(".")[1] in core]


def test_the_extra_all_has_every_package(extras: dict[str, set[str]]) -> None:
    assert extras["all"] == set().union(*(extras[e] for e in extras if e != "dev"))
    assert set(OPTIONAL.values()) <= extras["all"]


def test_the_console_script_names_the_extra() -> None:
    code = "sys.argv[1:] = ['info']\nfrom vaekernels.__main__ import main\nmain()"
    result = _without(["typer"], code)
    assert result.returncode == 2
    expected = "the command line needs the package typer: pip install 'vaekernels[cli]'"
    assert result.stderr == f"error: {expected}\n"
    text = (ROOT / "pyproject.toml").read_text()
    assert 'vaekernels = "vaekernels.__main__:main"' in text


def test_the_hub_is_needed_for_hub_ids_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    config = vk.models.VAEConfig(image_shape=(1, 8, 8), latent_dim=2, backbone="mlp", hidden=(3,))
    model = vk.models.VAE(config)
    model.save_pretrained(tmp_path)
    vk.models.VAE.from_pretrained(tmp_path)
    expected = r"needs the package huggingface_hub: pip install 'vaekernels\[hub\]'"
    with pytest.raises(ModuleNotFoundError, match=r"from_pretrained\('owner/name'\) " + expected):
        vk.models.VAE.from_pretrained("owner/name")
    with pytest.raises(ModuleNotFoundError, match="push_to_hub " + expected):
        model.push_to_hub("owner/name")


@pytest.mark.parametrize(
    ("built", "here", "reason"),
    [
        ({"torch": "2.1.0+cpu"}, None, r"built for torch 2\.1\.0\+cpu and this is torch"),
        ({"torch": "99.0.0"}, None, r"built for torch 99\.0\.0 and this is torch"),
        ({"python": "3.8.1"}, None, r"built for python 3\.8\.1 and this is python"),
        ({"torch": "2.9.1"}, "2.9.1", r"tested with torch 2\.11 to 2\.13 and this is 2\.9\.1"),
        ({"torch": "99.0.0"}, "99.0.0", r"tested with torch 2\.11 to 2\.13 and this is 99\.0\.0"),
    ],
)
def test_an_extension_for_another_version_leaves_plain_pytorch(
    built: dict[str, str], here: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning; a backend chosen by name is an error that has the reason."""
    monkeypatch.setattr(extension, "build_info", lambda: {**BUILD, **built})
    monkeypatch.setattr(extension, "load", lambda: pytest.fail("the library was loaded"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if here is not None:
        monkeypatch.setattr(torch, "__version__", here)
    extension._warn_once.cache_clear()
    choose = registry._automatic.__wrapped__
    with pytest.warns(UserWarning, match=rf"{reason}.*pip install .*plain PyTorch is used"):
        assert choose("gaussian_kl", "cpu", torch.float32) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("gaussian_kl", "cpu", torch.float32) == "reference"
    for backend in ("cpu", "cuda"):
        with pytest.raises(vk.BackendError, match=reason):
            registry._explicit.__wrapped__("gaussian_kl", backend, torch.float32, backend)


def test_the_tested_versions_of_torch_agree() -> None:
    first, last = extension.TESTED
    major, minor = last.split(".")
    wanted = f"torch>={first},<{major}.{int(minor) + 1}"
    assert f'"{wanted}"' in (ROOT / "pyproject.toml").read_text()
    assert f'"{wanted}"' in (ROOT / "build_backend.py").read_text()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution and a wheel without the extension, of a checkout with old binaries."""
    folder = tmp_path_factory.mktemp("published")
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "dist", "demo_output", "*.egg-info")
    shutil.copytree(ROOT, folder / "checkout", ignore=ignored)
    for stale in ("_C.cpython-39-x86_64-linux-gnu.so", "libvaekernels_cuda.so", "_build.py"):
        (folder / "checkout" / "vaekernels" / stale).write_text("BUILD = 'stale'")
    code = """
import sys
sys.modules["torch"] = None
import build_backend
assert not any("torch" in r for r in build_backend.get_requires_for_build_sdist())
print(build_backend.get_requires_for_build_wheel())
build_backend.build_sdist("..")
if build_backend.NO_EXTENSION:
    build_backend.build_wheel("..")
"""
    for switch, compiles in (("0", True), ("1", False)):
        result = _python("-c", code, cwd=folder / "checkout", VAEKERNELS_NO_EXTENSION=switch)
        assert result.returncode == 0, result.stderr
        requires = next(line for line in result.stdout.splitlines() if line.startswith("["))
        assert ("torch>=" in requires) == compiles
    return folder


def test_the_source_distribution_has_sources_and_no_binaries(published: Path) -> None:
    with tarfile.open(next(published.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        *("CMakeLists.txt", "MANIFEST.in", "build_backend.py", "constraints.txt", "setup.py"),
        *("csrc/bindings.cpp", "csrc/cuda/CMakeLists.txt", "tests/conftest.py", "tests/smoke.py"),
        *("docs/releasing.md", "LICENSE", "vaekernels/py.typed"),
    ):
        assert name in names
    made = r"\.so$|\.py[cod]$|__pycache__|_cache/|^vaekernels/_build\.py$|^build/|^\.venv/"
    assert not [name for name in names if re.search(made, name)]


def test_a_wheel_has_what_was_built_now_and_nothing_else(published: Path) -> None:
    with zipfile.ZipFile(next(published.glob("*.whl"))) as archive:
        names = archive.namelist()
        build = archive.read("vaekernels/_build.py").decode()
    assert "stale" not in build
    assert "VAEKERNELS_NO_EXTENSION=1 at build time" in build
    assert not [name for name in names if not name.startswith("vaekernels")]
    assert not [name for name in names if name.endswith(".so")]
    assert "vaekernels/backends/triton/conv/autotune_table.json" in names
    # The checkout's own record is not touched: an editable install reads it.
    assert "stale" in (published / "checkout/vaekernels/_build.py").read_text()
