"""Builds the compiled parts with CMake and records what was built in vaekernels/_build.py.

Environment:
    VAEKERNELS_NO_EXTENSION=1   a pure-Python package: no compiler is needed
    VAEKERNELS_CUDA=ON | OFF    force or forbid the CUDA library; by default it is built when
                                nvcc is found and torch has CUDA
    MAX_JOBS                    compile jobs
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

from build_backend import NO_EXTENSION

ROOT = Path(__file__).parent.resolve()


def wants_cuda() -> bool:
    requested = os.environ.get("VAEKERNELS_CUDA", "AUTO").upper()
    if requested in ("ON", "1"):
        return True
    if requested in ("OFF", "0"):
        return False
    if requested != "AUTO":
        raise SystemExit(f"VAEKERNELS_CUDA: expected ON, OFF or AUTO; got {requested}")
    import torch

    return torch.version.cuda is not None and shutil.which("nvcc") is not None


def build_info() -> dict[str, object]:
    if NO_EXTENSION:
        reason = "VAEKERNELS_NO_EXTENSION=1 at build time"
        return {"extension": False, "cuda": False, "reason": reason}
    import torch

    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "cl"
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return {
        "extension": True,
        "cuda": wants_cuda(),
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "compiler": (version.stdout.splitlines() or [compiler])[0],
    }


class CMakeBuild(build_ext):
    """Runs CMake once and leaves its libraries beside the package's modules."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11
        import torch
        from torch.utils import cpp_extension

        target = Path(self.get_ext_fullpath(ext.name)).parent.resolve()
        # A folder that outlives pip's, so that a second install compiles only what changed.
        folder = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        folder.mkdir(parents=True, exist_ok=True)
        includes = [p for p in cpp_extension.include_paths() if Path(p).exists()]
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "VAEKERNELS_TORCH_INCLUDES": ";".join(includes),
            "VAEKERNELS_TORCH_LIBRARY_DIR": str(Path(torch.__file__).parent / "lib"),
            "VAEKERNELS_CXX11_ABI": str(int(torch.compiled_with_cxx11_abi())),
            "VAEKERNELS_CUDA": "ON" if wants_cuda() else "OFF",
            "CMAKE_INSTALL_PREFIX": str(target.parent),
        }
        generator = []
        if ninja := shutil.which("ninja"):
            generator = ["-G", "Ninja"]
            # Said each time: the one of an earlier, isolated build is gone with its environment.
            options["CMAKE_MAKE_PROGRAM"] = ninja
        defines = [f"-D{key}={value}" for key, value in options.items()]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        run(["cmake", str(ROOT), *generator, *defines], folder)
        run(["cmake", "--build", ".", "--config", "Release", "-j", jobs], folder)
        run(["cmake", "--install", ".", "--config", "Release"], folder)


def run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"vaekernels: building the C++ extension failed: {error}. It needs cmake (pip install "
            "cmake) and a C++20 compiler; VAEKERNELS_NO_EXTENSION=1 installs without it"
        ) from error


class BuildPy(build_py):
    """Writes vaekernels/_build.py: into the checkout only where that is what is installed."""

    def run(self) -> None:
        super().run()
        folder = ROOT if self.editable_mode else Path(self.build_lib)
        text = f'"""Written by setup.py."""\n\nBUILD = {build_info()!r}\n'
        (folder / "vaekernels" / "_build.py").write_text(text)


setup(
    ext_modules=[] if NO_EXTENSION else [Extension("vaekernels._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildPy},
)
