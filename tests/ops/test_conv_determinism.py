"""Sums have one order: the same bits at any number of threads, where the kernels are ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import vaekernels as vk
from tests.ops import convs
from tests.ops.convs import Conv

# The first is cut into two parts by the filters' gradient of 3x3, which three threads share.
SHAPES = ((3, 24, 16, 33, 37), (1, 40, 3, 29, 31), (2, 3, 40, 29, 31), (1, 256, 256, 16, 16))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    convs.skip_if_refused("cpu")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _by_library(conv: Conv, tensors: dict[str, torch.Tensor], precision: str) -> set[str]:
    """The results that PyTorch's own convolution computes."""
    options = {} if conv.padding is None else {"padding": conv.padding}
    weight = tensors["weight"].detach().requires_grad_()
    found = vk.explain(conv.op, tensors["x"], weight, precision=precision, **options)
    algorithms = {"y": found.forward, "weight": found.weight_gradient, "x": found.x_gradient}
    theirs = {
        name
        for name, algorithm in algorithms.items()
        if algorithm is None or algorithm.name == "library"
    }
    # Behind the gradient of x lies that of the normalisation.
    return theirs | ({"norm_weight", "norm_bias"} if "x" in theirs else set())


@pytest.mark.parametrize("precision", convs.PRECISIONS)
@pytest.mark.parametrize(
    "conv", [conv for shape in SHAPES for conv in convs.every_op(shape)], ids=str
)
def test_the_same_bits_at_any_number_of_threads(conv: Conv, precision: str) -> None:
    tensors = conv.tensors()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(conv.results(tensors, None, backend="cpu", precision=precision))
    for name in results[0].keys() - _by_library(conv, tensors, precision):
        for other in results[1:]:
            assert torch.equal(results[0][name], other[name]), name
