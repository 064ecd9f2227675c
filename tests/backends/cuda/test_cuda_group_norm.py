"""group_norm_silu on a GPU, where Triton runs it, against float64.

The rule: an error of at most twice that of the reference at the same dtype, plus a floor.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops.norms import CASES, LAYOUTS, check, draw, laid
from vaekernels.backends import registry

pytest.importorskip("triton.language", reason="the package triton is not installed")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DEVICE, BACKEND = "cuda", "triton"
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Groups of 1, 3, 5, 7 and 75 channels, unaligned and aligned; one pixel; several steps; ranks.
SHAPES = {
    "groups_of_1": ((2, 6, 5, 7), 6),
    "groups_of_3": ((1, 96, 57, 57), 32),
    "groups_of_5": ((3, 40, 16, 16), 8),
    "groups_of_7": ((1, 14, 7, 5), 2),
    "wide_groups": ((2, 150, 30, 20), 2),
    "one_group": ((3, 20, 33, 7), 1),
    "one_pixel": ((2, 32, 1, 1), 4),
    "one_channel": ((2, 1, 9, 9), 1),
    "several_steps": ((1, 64, 512, 257), 32),
    "rank_2": ((4, 8), 2),
    "rank_3": ((2, 8, 37), 2),
    "rank_5": ((2, 8, 3, 4, 5), 4),
}


def on_device(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.to(DEVICE) for t in tensors]


def test_triton_is_chosen() -> None:
    for dtype in DTYPES:
        assert registry.select(CASES.op, "cuda", dtype) == BACKEND


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize(("shape", "groups"), SHAPES.values(), ids=SHAPES)
def test_odd_shapes(shape: tuple[int, ...], groups: int, layout: str, dtype: torch.dtype) -> None:
    x, weight, bias = draw(shape, dtype)
    check((laid(x, layout), weight, bias), groups, BACKEND, device=DEVICE)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_without_activation(layout: str, dtype: torch.dtype) -> None:
    x, weight, bias = draw((2, 12, 15, 13), dtype)
    check((laid(x, layout), weight, bias), 4, BACKEND, activation=None, device=DEVICE)


@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("shape", CASES.shapes.values(), ids=CASES.shapes)
def test_real_shapes(shape: tuple[int, ...], layout: str) -> None:
    x, weight, bias = draw(shape, torch.bfloat16)
    check((laid(x, layout), weight, bias), 32, BACKEND, device=DEVICE)
    check((laid(x, layout), weight.float(), bias.float()), 32, BACKEND, device=DEVICE)


@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_the_variance_of_a_large_mean_does_not_cancel(layout: str) -> None:
    from vaekernels.backends.triton.group_norm import statistics

    x = torch.randn(1, 64, 301, 257) + 1e4
    mean, rstd = (t.cpu().double() for t in statistics(laid(x, layout).to(DEVICE), 32, 1e-6))
    groups = x.double().reshape(1, 32, -1)
    torch.testing.assert_close(mean, groups.mean(-1), rtol=1e-7, atol=0)
    exact = (groups.var(-1, correction=0) + 1e-6).rsqrt()
    torch.testing.assert_close(rstd, exact, rtol=3e-7, atol=0)


@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_a_sample_is_the_same_bits_in_every_run_and_batch(layout: str) -> None:
    x, weight, bias = on_device(draw((3, 128, 70, 66), torch.bfloat16))
    results = []
    for part in (x, x, x[1:]):
        leaves = [t.detach().requires_grad_() for t in (laid(part, layout), weight, bias)]
        y = vk.group_norm_silu(*leaves, 32, backend=BACKEND)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    first, again, others = results
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for whole, alone in zip(first[:2], others[:2], strict=True):
        assert torch.equal(whole[1:], alone)


def test_a_graph_replay_reads_the_new_input() -> None:
    x, weight, bias = on_device(draw((1, 64, 32, 32), torch.bfloat16))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles
        vk.group_norm_silu(x, weight, bias, 32, backend=BACKEND)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = vk.group_norm_silu(x, weight, bias, 32, backend=BACKEND)
    x.copy_(x.flip(2))
    graph.replay()
    assert torch.equal(y, vk.group_norm_silu(x, weight, bias, 32, backend=BACKEND))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_offsets_beyond_32_bits(layout: str) -> None:
    """The halves of an image that is the same twice are the same, on both sides of 2^31."""
    half = torch.randn(1, 16, 8200, 8200, dtype=torch.bfloat16, device=DEVICE)
    x = torch.cat((half, half), 2)
    assert x.numel() > 2**31
    leaf = laid(x, layout).requires_grad_()
    weight, bias = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)
    y = vk.group_norm_silu(leaf, weight, bias, 16, backend=BACKEND)
    (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    for result in (y, grad):
        first, second = result.chunk(2, 2)
        assert torch.equal(first, second)
        assert not result.isnan().any()
    alone = vk.group_norm_silu(half, weight, bias, 16, backend=BACKEND)
    torch.testing.assert_close(y[:, :, :8200], alone, rtol=1e-2, atol=1e-2)
