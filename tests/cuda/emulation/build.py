"""Compiles csrc/cuda with a C++ compiler: a library beside torch, a program for the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))

HOST = ("bindings.cpp", "randn.cpp", "row_reduction.cpp", "rsample_kl.cpp", "tensors.cpp")
KERNELS = ("randn.cu", "row_reduction.cu", "rsample_kl.cu", "sums.cu")
FLAGS = (
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-g1"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", f"-I{HERE}"),
)
TORCH_FLAGS = (  # as csrc/cuda/CMakeLists.txt has them
    *(f"-isystem{path}" for path in cpp_extension.include_paths()),
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA"),
)
TORCH_LIBRARIES = (
    *(f"-L{Path(torch.__file__).parent / 'lib'}", "-Wl,--no-as-needed"),
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
    objects = []
    for source in sources:
        objects.append(folder / f"{source.name}.o")
        run(str(COMPILER), *FLAGS, *flags, "-x", "c++", "-c", source, "-o", objects[-1])
    return objects


def kernels(
    folder: Path, *flags: str, csrc: Path = CSRC, names: Iterable[str] = KERNELS
) -> list[Path]:
    """Objects of the device files; as nvcc does, CUDA's header comes before all else."""
    sources = [csrc / "cuda" / name for name in names]
    return compiled(folder, sources, f"-I{csrc}", "-include", "cuda_runtime.h", *flags)


def host_files(folder: Path, csrc: Path = CSRC, names: Iterable[str] = HOST) -> list[Path]:
    """Objects of the host files."""
    sources = [csrc / "cuda" / name for name in names]
    return compiled(folder, sources, f"-I{csrc}", "-include", "torch_on_cpu.h", *TORCH_FLAGS)


def library(folder: Path) -> Path:
    """The ops beside torch."""
    checks = ("-fsanitize=alignment,bounds", "-Dvaekernels=vaekernels_emulated")
    objects = [
        *compiled(folder, [HERE / "block.cpp", HERE / "launch.cpp"], "-O1"),
        *compiled(folder, [HERE / "torch_on_cpu.cpp"], *TORCH_FLAGS),
        *kernels(folder, "-O1", *checks),
        *host_files(folder),
    ]
    return link(folder / "libemulated.so", objects, "-shared", *TORCH_LIBRARIES)


def program(folder: Path, sanitizer: str) -> Path:
    """The exercise, its kernels with a sanitizer."""
    sources = [HERE / name for name in ("block.cpp", "launch.cpp", "exercise.cpp")]
    objects = [
        *compiled(folder, sources, "-O1", f"-I{CSRC}"),
        *kernels(folder, *sanitizing(sanitizer)),
    ]
    return link(folder / "exercise", objects, *sanitizing(sanitizer))


def variant(program: Path, folder: Path, sanitizer: str, csrc: Path, kernel: str) -> Path:
    """The exercise with one device file of other sources."""
    kept = [path for path in program.parent.glob("*.o") if path.name != f"{kernel}.o"]
    changed = kernels(folder, *sanitizing(sanitizer), csrc=csrc, names=[kernel])
    return link(folder / "exercise", [*kept, *changed], *sanitizing(sanitizer))


def sanitizing(sanitizer: str) -> tuple[str, ...]:
    return f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"
