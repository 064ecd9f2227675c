"""The CUDA library without a GPU: every kernel compiles, no hot one spills, torch loads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from vaekernels.backends.definitions import DEFINITIONS

ARCHITECTURES = ("sm_80", "sm_90a")
SOURCES = Path(__file__).parents[3] / "csrc" / "cuda"

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not on PATH"),
    pytest.mark.skipif(not SOURCES.is_dir(), reason="not a source tree"),
]


@dataclass(frozen=True)
class Kernel:
    """What the assembler says of one kernel."""

    name: str
    architecture: str
    stack: int
    spills: int
    registers: int


@dataclass(frozen=True)
class Build:
    library: Path
    log: str

    def kernels(self) -> list[Kernel]:
        pattern = re.compile(
            r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'"
            r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
            r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
            re.DOTALL,
        )
        return [
            Kernel(
                m["name"],
                m["architecture"],
                int(m["stack"]),
                int(m["stores"]) + int(m["loads"]),
                int(m["registers"]),
            )
            for m in pattern.finditer(self.log)
        ]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("cuda")
    options = {
        "VAEKERNELS_CUDA_ARCHITECTURES": ";".join(
            f"{name.removeprefix('sm_')}-real" for name in ARCHITECTURES
        ),
        "VAEKERNELS_TORCH_INCLUDES": ";".join(cpp_extension.include_paths()),
        "VAEKERNELS_TORCH_LIBRARY_DIR": str(Path(torch.__file__).parent / "lib"),
        "VAEKERNELS_CXX11_ABI": str(int(torch.compiled_with_cxx11_abi())),
    }
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    defines = [f"-D{key}={value}" for key, value in options.items()]
    logs = [
        run(["cmake", "-S", str(SOURCES), "-B", str(folder), *generator, *defines]),
        run(["cmake", "--build", str(folder), "--verbose"]),
    ]
    return Build(folder / "libvaekernels_cuda.so", "".join(logs))


def run(command: list[str]) -> str:
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


def test_every_source_compiles_for_every_architecture(build: Build) -> None:
    for source in SOURCES.glob("*.cu"):
        assert f"{source.name}.o" in build.log
    by_architecture = {
        wanted: {k.name for k in build.kernels() if k.architecture == wanted}
        for wanted in ARCHITECTURES
    }
    first, *others = by_architecture.values()
    assert first
    assert all(names == first for names in others)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernels_of_aligned_rows_neither_spill_nor_use_the_stack(
    build: Build, architecture: str
) -> None:
    hot = [
        kernel
        for kernel in build.kernels()
        if kernel.architecture == architecture and re.search("Vectors|Packs", kernel.name)
    ]
    for op in ("row_reduction_forward", "row_reduction_backward", "randn_kernel"):
        assert any(op in kernel.name for kernel in hot)
    for op in ("rsample_kl_forward", "rsample_kl_backward"):
        assert sum(op in kernel.name for kernel in hot) == 4  # float32, bfloat16, float16, mixed
    for kernel in hot:
        assert (kernel.stack, kernel.spills) == (0, 0), kernel
        assert kernel.registers <= 80, kernel  # three blocks a multiprocessor


def test_no_multiply_is_contracted_in_the_compile_commands(build: Build) -> None:
    commands = [line for line in build.log.splitlines() if ".cu.o" in line and "nvcc" in line]
    assert commands
    for command in commands:
        assert "-fmad=false" in command
        assert "fast_math" not in command


def test_torch_loads_the_library_and_registers_every_op(build: Build) -> None:
    names = [
        name
        for op, definition in DEFINITIONS.items()
        if "cuda" in definition.backends
        for name in (op, *([f"{op}_backward"] if definition.backward_schema else []))
    ]
    program = (
        "import sys, torch, vaekernels.ops\n"
        "torch.ops.load_library(sys.argv[1])\n"
        "has = torch._C._dispatch_has_kernel_for_dispatch_key\n"
        "missing = [op for op in sys.argv[2:] if not has('vaekernels::' + op, 'CUDA')]\n"
        "assert not missing, missing\n"
    )
    run([sys.executable, "-c", program, str(build.library), *names])
