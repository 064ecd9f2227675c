"""The convolutions' Triton kernels against the float64 reference, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from tests.ops.conformance import LAYOUTS
from tests.ops.convs import ACTIVATIONS, Conv
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import error

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]

# Odd sizes, channels that are no multiple of 16, two images: rows of the border between them.
CALLS = [
    Conv("conv3x3", (2, 6, 20, 5, 4), "leaky_relu", residual=True, groups=2),
    Conv("upsample_conv3x3", (2, 20, 3, 3, 4), "relu"),
    Conv("conv_transpose4x4", (2, 3, 18, 4, 3), layout="channels_last"),
    Conv("downsample_conv4x4", (2, 5, 17, 7, 4), "leaky_relu", layout="strided_halves"),
    Conv("downsample_conv3x3", (2, 4, 3, 7, 8), "silu", padding="asymmetric", bias=False),
    Conv("downsample_conv3x3", (2, 3, 4, 6, 7), padding="symmetric", layout="transposed"),
]


@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_float32(conv: Conv) -> None:
    convs.check(conv, "triton", precisions=("medium", "high"))


@pytest.mark.parametrize("conv", convs.every_op((2, 20, 6, 5, 4))[:-1], ids=convs.name_of)
def test_factors_of_medium_are_rounded_to_tf32(conv: Conv) -> None:
    convs.check_tf32(conv)


def test_rounding_to_tf32() -> None:
    """Ties go to the even one, large numbers to infinity; no NaN becomes a number."""
    from triton_probes import rounded_to_tf32

    x = torch.cat([torch.randn(1000), torch.randn(1000) * 1e30, torch.randn(1000) * 1e-30])
    assert torch.equal(rounded_to_tf32(x).double(), convs.nearest_tf32(x))
    half = 2.0**-11
    for number, expected in (
        (1 + half, 1.0),
        (1 + 3 * half, 1 + 4 * half),
        (-1 - half, -1.0),
        (1 + half + 2**-23, 1 + 2 * half),
        (torch.finfo(torch.float32).max, torch.inf),
        (-torch.inf, -torch.inf),
        (0.0, 0.0),
    ):
        assert rounded_to_tf32(torch.tensor([number])).item() == expected, number
    nans = torch.tensor([0x7FFFFFFF, 0x7F800001, 0x7FC00000, -1], dtype=torch.int32)
    assert rounded_to_tf32(nans.view(torch.float32)).isnan().all()


@pytest.mark.parametrize(
    ("conv", "dtype"),
    [(CALLS[0], torch.float16), (CALLS[1], torch.float16), (CALLS[0], torch.bfloat16)],
    ids=lambda value: convs.name_of(value) or str(value),
)
def test_half_types(conv: Conv, dtype: torch.dtype) -> None:
    """Tiers are float32's."""
    convs.check(conv, "triton", dtype, ("medium",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "activation"), list(zip(LAYOUTS, cycle(ACTIVATIONS), strict=False)), ids=str
)
@pytest.mark.parametrize("conv", convs.every_op((2, 5, 7, 6, 5)), ids=convs.name_of)
def test_every_option(conv: Conv, activation: str | None, layout: str) -> None:
    for bias in (True, False):
        conv = replace(conv, activation=activation, bias=bias, layout=layout)
        convs.check(conv, "triton", precisions=("highest",))


@pytest.mark.slow
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
@pytest.mark.parametrize(
    "shape", ((1, 1, 1, 1, 1), (1, 5, 3, 2, 2), (1, 20, 5, 1, 33), (3, 3, 40, 17, 2)), ids=str
)
def test_odd_shapes(conv: Conv, shape: tuple[int, ...]) -> None:
    size = [max(extent, conv.smallest) for extent in shape[3:]]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        convs.check(replace(conv, shape=(*shape[:3], *size)), "triton", dtype, ("high",))


@pytest.mark.parametrize("conv", convs.every_op((0, 3, 2, 4, 5)), ids=convs.name_of)
def test_an_empty_batch(conv: Conv) -> None:
    tensors = conv.tensors()
    got = conv.results(tensors, None, backend="triton")
    for name, expected in conv.results(tensors, None, backend="reference").items():
        assert torch.equal(got[name], expected), name


def test_filters_and_biases_in_other_strides() -> None:
    """Results are the same bits, and lie as the fakes say."""
    conv = CALLS[3]
    tensors = conv.tensors()
    expected = conv.results(tensors, None, backend="triton")
    tensors["weight"] = tensors["weight"].contiguous(memory_format=torch.channels_last)
    tensors["bias"] = torch.stack([tensors["bias"]] * 2, 1)[:, 0]
    results = conv.results(tensors, None, backend="triton")
    for name, value in results.items():
        assert torch.equal(value, expected[name]), name
    for name in ("y", "x"):
        assert results[name].is_contiguous(memory_format=torch.channels_last), name
    assert results["weight"].stride() == tensors["weight"].stride()


def test_a_gradient_asked_for_alone_and_twice() -> None:
    conv = CALLS[0]
    tensors = conv.tensors()
    together = conv.results(tensors, None, backend="triton")
    for name in ("weight", "norm_bias"):
        leaf = tensors[name].detach().requires_grad_()
        y = conv({**tensors, name: leaf}, backend="triton")
        for _ in range(2):
            (alone,) = torch.autograd.grad(y, leaf, convs.random_like(y), retain_graph=True)
            assert torch.equal(alone, together[name]), name


def test_double_backward_says_that_it_is_not_there() -> None:
    x, weight = torch.ones(1, 2, 3, 3, requires_grad=True), torch.ones(2, 2, 3, 3)
    y = vk.conv3x3(x, weight, backend="triton")
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"conv3x3: double backward.*reference"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", (torch.float64, torch.int32), ids=str)
def test_what_is_not_taken_is_refused(dtype: torch.dtype) -> None:
    x, weight = torch.ones(1, 2, 3, 3).to(dtype), torch.ones(2, 2, 3, 3).to(dtype)
    with pytest.raises((vk.BackendError, TypeError), match=f"conv3x3: .*{dtype}"):
        vk.conv3x3(x, weight, backend="triton")


def test_a_shape_that_is_not_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.ops import _conv

    monkeypatch.setattr(_conv, "_PIXELS", 60)
    x, weight = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    vk.conv3x3(x[:1], weight, backend="triton")
    with pytest.raises(vk.BackendError, match=r"conv3x3: .*'triton' .*x is \(2, 2, 3, 3\)"):
        vk.conv3x3(x, weight, backend="triton")
    with vk.use_backend("triton"), pytest.raises(vk.BackendError, match="shape"):
        vk.conv3x3(x, weight)
    monkeypatch.setattr(registry, "RANKING", {"cpu": ("triton",)})
    registry._automatic.cache_clear()
    with pytest.warns(UserWarning, match="conv3x3: backend 'triton' refused .*plain PyTorch"):
        y = vk.conv3x3(x, weight)
    registry._automatic.cache_clear()
    assert torch.equal(y, vk.conv3x3(x, weight, backend="reference"))


def test_autocast_computes_in_its_dtype() -> None:
    conv = CALLS[0]
    tensors = conv.tensors()
    leaves = {name: t.requires_grad_() for name, t in tensors.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(leaves, backend="triton")
        expected = conv(tensors, backend="reference")
    assert y.dtype == torch.bfloat16
    assert error(y, expected) <= 2e-2
    grads = torch.autograd.grad(y.float().sum(), list(leaves.values()))
    for leaf, grad in zip(leaves.values(), grads, strict=True):
        assert (grad.dtype, grad.shape) == (leaf.dtype, leaf.shape)


def test_nan_and_infinity_stay_in_their_windows() -> None:
    """Also at the edges, whose borders are read by the next line and the next image."""
    weight = torch.randn(2, 3, 3, 3)
    for value in (float("nan"), float("inf")):
        for place in ((0, 0, 0, 0), (0, 1, 3, 4), (1, 2, 0, 4)):
            x = torch.randn(2, 3, 4, 5)
            x[place] = value
            got = vk.conv3x3(x, weight, activation="relu", backend="triton")
            expected: Tensor = F.relu(F.conv2d(x, weight, padding=1))
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_opcheck() -> None:
    conv = CALLS[1]
    tensors = conv.tensors()
    arguments = (*(t.requires_grad_() for t in tensors.values()), None, 0.1, "high")
    torch.library.opcheck(
        torch.ops.vaekernels_triton.upsample_conv3x3.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
