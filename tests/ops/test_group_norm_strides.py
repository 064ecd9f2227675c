"""``vk.group_norm_silu`` on images and vectors in any strides."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk
from tests.ops.norms import draw, run
from vaekernels.backends import extension, registry

needs_extension = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)
BACKENDS = ("reference", pytest.param("cpu", marks=needs_extension))


def spread(vector: Tensor, how: str) -> Tensor:
    """The values of ``vector`` in other strides, amid numbers that are not its own."""
    if how == "expanded":
        return vector[:1].expand(vector.shape)
    return torch.stack((vector, torch.full_like(vector, 1e9)), 1)[:, 0]


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("how", ("expanded", "column"))
def test_weight_and_bias_in_any_strides(how: str, dtype: torch.dtype) -> None:
    x, weight, bias = draw((2, 64, 7, 5), dtype)
    spaced = [spread(vector, how) for vector in (weight, bias)]
    dense = [vector.contiguous() for vector in spaced]
    for backend in registry.RANKING["cpu"]:
        if registry.refusals(backend, "group_norm_silu", "cpu", dtype):
            continue
        ours, right = (run((x, *vectors), 8, backend) for vectors in (spaced, dense))
        for a, b in zip(ours, right, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "size", [(1, 6, 1, 5), (1, 6, 3, 1), (2, 6, 1, 1), (3, 6, 1, 5), (1, 1, 2, 3)]
)
def test_dims_of_size_one_in_any_strides(size: tuple[int, ...], backend: str) -> None:
    """Their strides mean nothing, and the layout that they suggest may not be the real one."""
    weight, bias = torch.randn(size[1]), torch.randn(size[1])
    groups = 2 if size[1] % 2 == 0 else 1
    for order in itertools.permutations(range(4)):
        sizes = [size[dim] for dim in order]
        # Some strides reach beyond the dense elements.
        dense = (
            torch.randn(1000)[: math.prod(sizes)].view(sizes).permute(*map(order.index, range(4)))
        )
        for stride in (1, 7, size[1]):
            strides = [
                stride if length == 1 else step
                for length, step in zip(size, dense.stride(), strict=True)
            ]
            x = dense.as_strided(size, strides)
            expected = F.silu(F.group_norm(x.contiguous(), groups, weight, bias))
            got = vk.group_norm_silu(x, weight, bias, groups, backend=backend)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
