"""What emulation shows beyond results: orders of threads, the choice of access, misalignment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.backends.cuda import test_cuda_latent as latent
from tests.backends.cuda.emulation import build
from tests.backends.cuda.emulation.ops import Emulation
from tests.ops.oracle import KINDS, make

ROOT = Path(__file__).parents[3]
ACCESSES = ("float32", "bfloat16", "float16", "packs", "any, float32", "any, float64")


def rows(dtype: torch.dtype, distance: int = 16, offset: int = 0) -> Tensor:
    """(3, 5): dense rows so many elements apart, from an aligned address and an offset on."""
    memory = torch.zeros(3 * distance + 32, dtype=dtype)
    start = -(memory.data_ptr() // dtype.itemsize) % 16 + offset
    return memory[start:].as_strided((3, 5), (distance, 1))


@pytest.mark.parametrize(
    ("access", "tensors"),
    [
        ("float32", [rows(torch.float32)] * 2),
        ("float32", [rows(torch.float32), torch.tensor(1.0)]),
        ("bfloat16", [rows(torch.bfloat16)] * 2),
        ("float16", [rows(torch.float16)]),
        ("packs", [rows(torch.float32), rows(torch.bfloat16)]),
        ("packs", [rows(torch.bfloat16, distance=12)] * 2),
        ("any, float32", [rows(torch.bfloat16, offset=2)]),
        ("any, float32", [rows(torch.float32, offset=2)]),
        ("any, float32", [rows(torch.float32), rows(torch.float32, distance=14)]),
        ("any, float32", [rows(torch.float32), torch.zeros(5, 3).t()]),
        ("any, float64", [rows(torch.float32), rows(torch.float64)]),
    ],
)
def test_the_fastest_access_is_chosen(
    access: str, tensors: list[Tensor], emulation: Emulation
) -> None:
    assert ACCESSES[emulation.ops.access(tensors)] == access


@pytest.mark.parametrize("name", latent.OPS)
def test_the_order_of_threads_does_not_matter(name: str, emulated: Emulation) -> None:
    op = latent.OPS[name][0]
    for shape in ((9, 20), (2, 513), (2, 3 * 4096 + 8)):
        inputs = [make(kind, shape, torch.float32, i) for i, kind in enumerate(KINDS[name])]
        results = latent.run(lambda *t: op(*t, backend="cuda"), inputs)
        with emulated.switched_on("reverse_threads"):
            again = latent.run(lambda *t: op(*t, backend="cuda"), inputs)
        assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))


def test_a_misaligned_access_is_an_error(emulation: Emulation, tmp_path: Path) -> None:
    """Of a library whose choice of access takes every dense row for aligned."""
    csrc = build.changed_sources(tmp_path, "tensors.cpp", "r.alignment >= pack", "pack > 0")
    host_file = build.host_files(tmp_path, [csrc / "cuda" / "tensors.cpp"])
    library = build.relinked(emulation.library, host_file, *build.LIBRARY_FLAGS)
    program = (
        "import pathlib, sys, torch\n"
        "import vaekernels as vk\n"
        "from tests.backends.cuda.emulation.ops import Emulation\n"
        "logits = torch.zeros(33, dtype=torch.bfloat16)[1:].view(2, 16)\n"
        "with Emulation(pathlib.Path(sys.argv[1])).as_backend():\n"
        "    vk.bernoulli_nll(logits, logits.float(), backend='cuda')\n"
    )
    command = [sys.executable, "-c", program, library]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "cudaErrorMisalignedAddress: block 0, thread 0: a misaligned access" in result.stderr
