"""Builds the CPU library with a sanitizer, and runs Python on it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[2]
MEMORY, RACES = "address;undefined", "thread"
# What has to be there before Python starts.
RUNTIMES = {MEMORY: ("libasan.so", "libubsan.so"), RACES: ("libtsan.so",)}
OPTIONS = {
    # Python frees little at its end.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:exitcode=66",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=66",
    # PyTorch is not compiled with it.
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:exitcode=66",
    # Each object has memory of its own.
    "PYTHONMALLOC": "malloc",
}


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++"))


def refusals(sanitizer: str) -> list[str]:
    """Why the library cannot be built and run here; empty if it can."""
    reasons = [f"there is no {name}" for name in ("cmake", "ninja") if tool(name) is None]
    if sys.platform != "linux":
        reasons.append("sanitizers are loaded as Linux does it")
    if compiler() is None:
        reasons.append("there is no C++ compiler")
    elif not all(runtime(name) for name in RUNTIMES[sanitizer]):
        reasons.append(f"the compiler has no -fsanitize={sanitizer.replace(';', ',')}")
    return reasons


def tool(name: str) -> str | None:
    """A program beside this Python, or anywhere."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def runtime(name: str) -> Path | None:
    """The path of one of the compiler's libraries."""
    command = [str(compiler()), f"-print-file-name={name}"]
    found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return found.resolve() if found.is_absolute() else None


def library(folder: Path, sanitizer: str) -> Path:
    """The library with the sanitizer; ``folder`` keeps what was compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    includes = [path for path in cpp_extension.include_paths() if Path(path).exists()]
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "VAEKERNELS_TORCH_INCLUDES": ";".join(includes),
        "VAEKERNELS_TORCH_LIBRARY_DIR": str(Path(torch.__file__).parent / "lib"),
        "VAEKERNELS_CXX11_ABI": str(int(torch.compiled_with_cxx11_abi())),
        "VAEKERNELS_SANITIZE": sanitizer,
    }
    defines = [f"-D{key}={value}" for key, value in options.items()]
    _run([str(tool("cmake")), str(ROOT), "-G", "Ninja", *defines], folder)
    _run([str(tool("cmake")), "--build", "."], folder)
    (built,) = folder.glob("_C*.so")
    return built


def library_with_mistake(
    folder: Path, original: Path, file: str, old: str, new: str, source: str
) -> Path:
    """``original`` with one source compiled anew, of csrc with a text of a file replaced.

    Args:
        folder: for what is compiled.
        original: what :func:`library` gave.
        file: of csrc, in which ``old`` stands once.
        old: the text.
        new: what stands in its place.
        source: of csrc, compiled for the baseline where it is a kernel.
    """
    csrc = folder / "csrc"
    shutil.copytree(ROOT / "csrc", csrc)
    text = (csrc / file).read_text()
    assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
    (csrc / file).write_text(text.replace(old, new))
    commands = json.loads((original.parent / "compile_commands.json").read_text())
    compile_one = next(
        command
        for command in commands
        if command["file"] == str(ROOT / "csrc" / source)
        and ("VK_CAPABILITY" not in command["command"] or "=baseline" in command["command"])
    )
    changed = folder / "changed.o"
    command = compile_one["command"].replace(str(ROOT / "csrc"), str(csrc))
    # The headers that were compiled before are those of the original.
    words = [word for word in shlex.split(command) if word != "-Winvalid-pch"]
    words[words.index("-o") + 1] = str(changed)
    _run(words, original.parent)
    shown = subprocess.run(
        [str(tool("ninja")), "-t", "commands", original.name],
        cwd=original.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    link = shown.stdout.splitlines()[-1].split("&&")
    words = shlex.split(next(part for part in link if " -o " in part))
    (linked,) = (
        word for word in words if compile_one["output"].endswith(word) and word[-2:] == ".o"
    )
    words[words.index(linked)] = str(changed)
    words[words.index("-o") + 1] = str(folder / original.name)
    _run(words, original.parent)
    return folder / original.name


def package(library: Path) -> Path:
    """A folder for PYTHONPATH beside the library: this package with it."""
    target = library.parent / "package"
    shutil.copytree(
        ROOT / "vaekernels",
        target / "vaekernels",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
        dirs_exist_ok=True,
    )
    shutil.copy2(library, target / "vaekernels")
    return target


def run(package: Path, sanitizer: str, *arguments: str | Path) -> tuple[int, str]:
    """Python with these arguments on a package: its exit status, and what was printed."""
    libraries = [*(runtime(name) for name in RUNTIMES[sanitizer]), runtime("libstdc++.so")]
    environment = {
        **os.environ,
        **OPTIONS,
        "LD_PRELOAD": ":".join(str(library) for library in libraries),
        "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)]),
    }
    environment.pop("PYTEST_ADDOPTS", None)
    result = subprocess.run(
        # Addresses that are random may lie where ThreadSanitizer wants its own.
        [*_fixed_addresses(), sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=package,
    )
    return result.returncode, result.stdout


def _fixed_addresses() -> list[str]:
    setarch = shutil.which("setarch")
    if setarch is None:
        return []
    command = [setarch, "--addr-no-randomize"]
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if works else []


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
