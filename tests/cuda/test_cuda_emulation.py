"""What emulation shows beyond results: orders of threads, the choice of access, errors of a card."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cuda import test_cuda_latent as latent
from tests.cuda.emulation import build, sources
from tests.cuda.emulation.ops import Emulation
from tests.ops.oracle import KINDS, make

ACCESSES = ("float32", "bfloat16", "float16", "packs", "any, float32", "any, float64")


def rows(dtype: torch.dtype, stride: int = 16, offset: int = 0) -> Tensor:
    """(3, 5), dense rows at so many elements from each other, from 16 bytes and an offset on."""
    base = torch.zeros(3 * stride + 32, dtype=dtype)
    start = -(base.data_ptr() // dtype.itemsize) % 16 + offset
    return base[start:].as_strided((3, 5), (stride, 1))


@pytest.mark.parametrize(
    ("access", "tensors"),
    [
        ("float32", [rows(torch.float32)] * 2),
        ("bfloat16", [rows(torch.bfloat16)] * 2),
        ("float16", [rows(torch.float16)]),
        ("float32", [rows(torch.float32), torch.tensor(1.0)]),
        ("packs", [rows(torch.float32), rows(torch.bfloat16)]),
        ("packs", [rows(torch.bfloat16), rows(torch.float16, stride=12)]),
        ("packs", [torch.tensor(1.0)]),
        ("any, float32", [rows(torch.float32, offset=2)]),
        ("any, float32", [rows(torch.float32), rows(torch.float32, stride=14)]),
        ("any, float32", [rows(torch.bfloat16, offset=2)]),
        ("any, float32", [rows(torch.float32), torch.zeros(5, 3).t()]),
        ("any, float64", [rows(torch.float32), rows(torch.float64)]),
    ],
)
def test_the_fastest_access_is_chosen(
    access: str, tensors: list[Tensor], emulation: Emulation
) -> None:
    assert ACCESSES[emulation.ops.access(tensors)] == access
