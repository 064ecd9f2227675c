"""Compiles csrc/cuda with a C++ compiler: a library beside torch, a program for the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
CSRC = HERE.parents[3] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))

FLAGS = (
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-g1"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas"),
)
TORCH_FLAGS = (  # as csrc/cuda/CMakeLists.txt has them
    *(f"-isystem{path}" for path in cpp_extension.include_paths()),
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA"),
)
LIBRARY_FLAGS = (
    *("-shared", f"-L{Path(torch.__file__).parent / 'lib'}", "-Wl,--no-as-needed"),
    *("-ltorch", "-ltorch_cpu"),
)


def refusals() -> list[str]:
    """Why nothing can be compiled; empty if it can."""
    reasons = []
    if COMPILER is None:
        reasons.append("there is no C++ compiler")
    if not CSRC.is_dir():
        reasons.append("not a source tree")
    if sys.platform != "linux":
        reasons.append("fibers are those of Linux")
    return reasons


def sanitizer_refusals(folder: Path, sanitizer: str) -> list[str]:
    """Why programs with it cannot run here; empty if they can."""
    source = folder / "nothing.cpp"
    source.write_text("int main() {}")
    try:
        run(str(COMPILER), source, *sanitizing(sanitizer), "-o", folder / "nothing")
        run(folder / "nothing")
    except AssertionError as error:
        return [f"no program runs with -fsanitize={sanitizer}: {error}"]
    return []


def run(*command: str | Path) -> None:
    """Run a compiler."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]


def link(target: Path, objects: Iterable[Path], *flags: str) -> Path:
    """``target`` of ``objects``."""
    run(str(COMPILER), *objects, "-o", target, "-pthread", *flags)
    return target


def compiled(folder: Path, sources: Iterable[Path], *flags: str) -> list[Path]:
    """One object per source, in ``folder``."""

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.name}.o"
        # A changed copy of csrc comes before it.
        includes = (f"-I{HERE}", f"-I{source.parents[1]}", f"-I{CSRC}")
        run(str(COMPILER), *FLAGS, *includes, *flags, "-x", "c++", "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def kernels(folder: Path, sources: Iterable[Path], *flags: str) -> list[Path]:
    """Objects of device files; as nvcc does, CUDA's header comes before all else."""
    return compiled(folder, sources, "-include", "cuda_runtime.h", *flags)


def host_files(folder: Path, sources: Iterable[Path]) -> list[Path]:
    """Objects of host files."""
    return compiled(folder, sources, "-include", "torch_on_cpu.h", *TORCH_FLAGS)


def library(folder: Path) -> Path:
    """The ops beside torch."""
    flags = ("-O1", "-fsanitize=alignment,bounds", "-Dvaekernels=vaekernels_emulated")
    objects = [
        *compiled(folder, [HERE / "block.cpp", HERE / "launch.cpp"], "-O1"),
        *compiled(folder, [HERE / "torch_on_cpu.cpp"], *TORCH_FLAGS),
        *kernels(folder, (CSRC / "cuda").glob("*.cu"), *flags),
        *host_files(folder, [*(CSRC / "cuda").glob("*.cpp"), HERE / "access.cpp"]),
    ]
    return link(folder / "libemulated.so", objects, *LIBRARY_FLAGS)


def sanitizing(sanitizer: str) -> tuple[str, ...]:
    """To compile and to link with it; its first report ends the program."""
    return f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"


def program(folder: Path, sanitizer: str) -> Path:
    """The exercise; its kernels, and nothing else, with a sanitizer."""
    sources = [HERE / name for name in ("block.cpp", "launch.cpp", "exercise.cpp")]
    objects = [
        *compiled(folder, sources, "-O1"),
        *kernels(folder, (CSRC / "cuda").glob("*.cu"), *sanitizing(sanitizer)),
    ]
    return link(folder / "exercise", objects, *sanitizing(sanitizer))


def relinked(original: Path, changed: Sequence[Path], *flags: str) -> Path:
    """A library or program with some objects in place of those of the same names."""
    names = [path.name for path in changed]
    kept = [path for path in original.parent.glob("*.o") if path.name not in names]
    return link(changed[0].parent / original.name, [*kept, *changed], *flags)


def changed_sources(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of csrc with one text in a file of csrc/cuda replaced."""
    for part in ("common", "cuda"):
        shutil.copytree(CSRC / part, folder / "csrc" / part)
    path = folder / "csrc" / "cuda" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))
    return folder / "csrc"
