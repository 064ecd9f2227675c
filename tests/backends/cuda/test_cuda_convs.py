"""The convolutions on a GPU, where Triton runs them, against float64 on the CPU.

The rule: 2e-5 of the largest number for float32 in the tier "high", 2e-3 in "medium", and elsewhere
an error of at most twice that of the CPU's plain PyTorch at the same dtype, plus a floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import vaekernels as vk
from tests.ops import convs
from tests.ops.conformance import LAYOUTS
from tests.ops.convs import ACTIVATIONS, Conv
from vaekernels.backends import registry

pytest.importorskip("triton.language", reason="the package triton is not installed")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]

DEVICE, BACKEND = "cuda", "triton"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Aligned channels and others, images and latents on either side, several tiles and one pixel.
SHAPES = {
    "one": (1, 1, 1, 1, 1),
    "image_in": (2, 3, 128, 33, 31),
    "image_out": (2, 128, 3, 33, 31),
    "latent_in": (1, 4, 160, 7, 5),
    "odd": (3, 20, 96, 17, 19),
    "aligned": (2, 64, 64, 32, 32),
    "wide": (1, 256, 512, 16, 16),
    "many_small": (17, 32, 32, 4, 4),
}


@pytest.fixture(autouse=True)
def _by_our_kernels() -> Iterator[None]:
    """Whatever the table says; cuDNN's way is tested in test_cuda_conv_choice.py."""
    from vaekernels.backends.triton.conv.dispatch import force_algorithm

    with force_algorithm("tap_gemm"):
        yield


def test_triton_is_chosen() -> None:
    for dtype in DTYPES:
        assert registry.select("conv3x3", "cuda", dtype) == BACKEND


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_shapes(conv: Conv, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    size = [max(extent, conv.smallest) for extent in shape[3:]]
    conv = replace(conv, shape=(*shape[:3], *size))
    # A lone result may be small beside its terms, whose errors are those of tf32.
    precisions = convs.PRECISIONS if shape == SHAPES["one"] else convs.GPU_PRECISIONS
    convs.check(conv, BACKEND, dtype, precisions, DEVICE)


@pytest.mark.parametrize("shape", (SHAPES["odd"], SHAPES["aligned"]), ids=str)
@pytest.mark.parametrize("conv", convs.every_op()[:-1], ids=convs.name_of)
def test_factors_of_medium_are_rounded_to_tf32(conv: Conv, shape: tuple[int, ...]) -> None:
    """Rounded, where the matrix units by themselves would cut off."""
    convs.check_tf32(replace(conv, shape=shape), DEVICE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("conv", convs.every_op((2, 48, 32, 13, 18)), ids=convs.name_of)
def test_options(conv: Conv, activation: str | None, layout: str) -> None:
    conv = replace(conv, activation=activation, layout=layout)
    for dtype in (torch.float32, torch.bfloat16):
        convs.check(conv, BACKEND, dtype, convs.GPU_PRECISIONS, DEVICE)


@pytest.mark.parametrize("conv", convs.every_op((3, 64, 64, 40, 36)), ids=convs.name_of)
def test_the_same_bits_in_every_run(conv: Conv) -> None:
    tensors = {name: t.to(DEVICE, torch.bfloat16) for name, t in conv.tensors().items()}
    with torch.no_grad():
        grad = torch.randn_like(conv(tensors, backend=BACKEND))
    first, again = (conv.results(tensors, grad, backend=BACKEND) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name


def test_a_graph_replay_reads_the_new_input_and_weight() -> None:
    conv = Conv("conv3x3", (1, 64, 64, 32, 32), "silu", residual=True, groups=8)
    tensors = {name: t.to(DEVICE, torch.bfloat16) for name, t in conv.tensors().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):  # compiles
        conv(tensors, backend=BACKEND)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = conv(tensors, backend=BACKEND)
    for name in ("x", "weight"):
        tensors[name].copy_(tensors[name].flip(0, 2))
    graph.replay()
    with torch.no_grad():
        assert torch.equal(y, conv(tensors, backend=BACKEND))


@pytest.mark.slow
def test_offsets_beyond_32_bits() -> None:
    """An image of more than 2^31 numbers: its lower half is that half on its own."""
    weight = torch.randn(32, 32, 3, 3, dtype=torch.bfloat16, device=DEVICE) / 17
    x = torch.randn(1, 32, 8400, 8192, dtype=torch.bfloat16, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last)
    assert x.numel() > 2**31
    whole = vk.conv3x3(x, weight, backend=BACKEND)[:, :, 4201:]
    half = vk.conv3x3(x[:, :, 4200:], weight, backend=BACKEND)[:, :, 1:]
    assert torch.equal(whole, half)
