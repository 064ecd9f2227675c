"""Independent witnesses of the convolutions: loops over pixels, algebra, closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs


@pytest.fixture(params=(("reference", torch.float64), ("cpu", torch.float32)), ids=("ref", "cpu"))
def options(request: pytest.FixtureRequest) -> tuple[dict[str, str], torch.dtype]:
    backend, dtype = request.param
    convs.skip_if_refused(backend)
    return {"backend": backend}, dtype


Options = tuple[dict[str, str], torch.dtype]


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _assert_equal(got: Tensor, exact: Tensor) -> None:
    bound = convs.HIGH if got.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=bound * float(exact.abs().max()))


def _loops(x: Tensor, weight: Tensor, bias: Tensor, stride: int, before: int, after: int) -> Tensor:
    """A convolution pixel by pixel and tap by tap; zeros ``before`` and ``after`` the image."""
    batch, _, height, width = x.shape
    taps = weight.shape[2]
    rows = (height + before + after - taps) // stride + 1
    columns = (width + before + after - taps) // stride + 1
    y = bias.view(1, -1, 1, 1).repeat(batch, 1, rows, columns)
    for i in range(rows):
        for j in range(columns):
            for k in range(taps):
                for m in range(taps):
                    row, column = i * stride + k - before, j * stride + m - before
                    if 0 <= row < height and 0 <= column < width:
                        y[:, :, i, j] += x[:, :, row, column] @ weight[:, :, k, m].T
    return y


@pytest.mark.parametrize("outputs", (4, 9))
@pytest.mark.parametrize("size", ((5, 6), (2, 3), (4, 9)))
def test_loops_over_pixels(size: tuple[int, int], outputs: int, options: Options) -> None:
    keywords, dtype = options
    x, bias = _draw(2, 3, *size), _draw(outputs)
    w3, w4 = _draw(outputs, 3, 3, 3), _draw(outputs, 3, 4, 4)
    inputs3 = [t.to(dtype) for t in (x, w3, bias)]
    inputs4 = [t.to(dtype) for t in (x, w4, bias)]
    asymmetric, symmetric = (
        vk.downsample_conv3x3(*inputs3, padding=padding, **keywords)
        for padding in ("asymmetric", "symmetric")
    )
    _assert_equal(vk.conv3x3(*inputs3, **keywords), _loops(x, w3, bias, 1, 1, 1))
    _assert_equal(asymmetric, _loops(x, w3, bias, 2, 0, 1))
    _assert_equal(symmetric, _loops(x, w3, bias, 2, 1, 1))
    _assert_equal(vk.downsample_conv4x4(*inputs4, **keywords), _loops(x, w4, bias, 2, 1, 1))
    large = torch.stack([x, x], -1).flatten(3)
    large = torch.stack([large, large], 3).flatten(2, 3)  # each pixel four times
    _assert_equal(vk.upsample_conv3x3(*inputs3, **keywords), _loops(large, w3, bias, 1, 1, 1))


def test_the_transposed_one_scatters(options: Options) -> None:
    keywords, dtype = options
    x, weight, bias = _draw(2, 3, 4, 5), _draw(3, 4, 4, 4), _draw(4)
    large = torch.zeros(2, 4, 10, 12, dtype=torch.float64)  # a pixel of margin, which is cut off
    for i in range(4):
        for j in range(5):
            large[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum(
                "nc,cokl->nokl", x[:, :, i, j], weight
            )
    exact = large[:, :, 1:-1, 1:-1] + bias.view(1, -1, 1, 1)
    got = vk.conv_transpose4x4(x.to(dtype), weight.to(dtype), bias.to(dtype), **keywords)
    _assert_equal(got, exact)


def test_the_4x4_ones_are_adjoint(options: Options) -> None:
    """<down(x), y> = <x, up(y)> for the same filter."""
    keywords, dtype = options
    x, y, weight = (t.to(dtype) for t in (_draw(2, 5, 12, 8), _draw(2, 7, 6, 4), _draw(7, 5, 4, 4)))
    down = vk.downsample_conv4x4(x, weight, **keywords)
    up = vk.conv_transpose4x4(y, weight, **keywords)
    left, right = (down.double() * y.double()).sum(), (x.double() * up.double()).sum()
    scale = float(down.double().norm() * y.double().norm())
    assert abs(float(left - right)) <= convs.HIGH * scale


def test_backward_is_the_adjoint_of_forward(options: Options) -> None:
    """<conv(v), g> = <v, backward(g)>, in x and in the filter alike: both are linear."""
    keywords, dtype = options
    for conv in convs.every_op((2, 5, 7, 6, 8), bias=False):
        if conv.groups is not None:
            continue
        tensors = {name: t.to(dtype) for name, t in conv.tensors().items()}
        results = conv.results(tensors, None, **keywords)
        left = (results["y"].double() * convs.random_like(results["y"]).double()).sum()
        for name in ("x", "weight"):
            right = (tensors[name].double() * results[name].double()).sum()
            scale = float(tensors[name].double().norm() * results[name].double().norm())
            assert abs(float(left - right)) <= convs.HIGH * scale, (conv, name)


def test_a_delta_shifts_the_image(options: Options) -> None:
    keywords, dtype = options
    x = torch.arange(2 * 3 * 5 * 4, dtype=dtype).view(2, 3, 5, 4)
    for k in range(3):
        for m in range(3):
            weight = torch.zeros(3, 3, 3, 3, dtype=dtype)
            weight[[0, 1, 2], [0, 1, 2], k, m] = 1.0
            padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
            exact = padded[:, :, k : k + 5, m : m + 4].double()
            _assert_equal(vk.conv3x3(x, weight, **keywords), exact)


@pytest.mark.parametrize("groups", (1, 2, 6))
def test_the_prologue_is_its_definition(groups: int, options: Options) -> None:
    keywords, dtype = options
    x, weight = _draw(3, 6, 5, 4) * 3.0 + 10.0, _draw(4, 6, 3, 3)
    scale, shift = _draw(6), _draw(6)
    rows = x.view(3, groups, -1)
    mean = rows.mean(2, keepdim=True)
    variance = (rows - mean).square().mean(2, keepdim=True)
    u = ((rows - mean) / (variance + 1e-3).sqrt()).view_as(x)
    u = u * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    exact = _loops(u / (1 + torch.exp(-u)), weight, torch.zeros(4).double(), 1, 1, 1)
    norm = vk.NormPrologue(scale.to(dtype), shift.to(dtype), groups, eps=1e-3)
    _assert_equal(vk.conv3x3(x.to(dtype), weight.to(dtype), norm=norm, **keywords), exact)


def test_the_activations_are_their_definitions(options: Options) -> None:
    keywords, dtype = options
    x, weight = (t.to(dtype) for t in (_draw(2, 3, 5, 5), _draw(4, 3, 3, 3)))
    linear = vk.conv3x3(x, weight, **keywords).double()
    exact = {
        "relu": linear * (linear > 0),
        "leaky_relu": torch.where(linear > 0, linear, 0.3 * linear),
        "silu": linear / (1 + torch.exp(-linear)),
    }
    for activation, values in exact.items():
        got = vk.conv3x3(x, weight, activation=activation, negative_slope=0.3, **keywords)
        _assert_equal(got, values)


def test_keeping_the_normalised_activations_gives_the_same(options: Options) -> None:
    keywords, dtype = options
    x, weight, scale, shift = (
        t.to(dtype).requires_grad_()
        for t in (_draw(2, 6, 5, 4), _draw(4, 6, 3, 3), _draw(6), _draw(6))
    )
    norm = vk.NormPrologue(scale, shift, 2)
    found = []
    for recompute in ("norm", None):
        y = vk.conv3x3(x, weight, norm=norm, recompute=recompute, **keywords)
        leaves = (x, weight, scale, shift)
        found.append((y, *torch.autograd.grad(y, leaves, convs.random_like(y))))
    for recomputed, kept in zip(*found, strict=True):
        _assert_equal(kept.detach(), recomputed.detach().double())
