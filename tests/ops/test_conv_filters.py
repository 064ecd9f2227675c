"""Filters are transformed once and kept; never after they have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from tests.ops.convs import Conv

# The second runs on the library, which has its own copy of the weight.
SHAPES = ((1, 20, 20, 9, 9), (1, 6, 20, 9, 9))
CALLS = [conv for shape in SHAPES for conv in convs.every_op(shape, bias=False)]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """Filters are kept only where no gradient is wanted."""
    convs.skip_if_refused("cpu")
    with torch.no_grad():
        yield


def _in_place(weight: Tensor) -> None:
    weight.mul_(2.0)


def _through_data(weight: Tensor) -> None:
    weight.data.mul_(2.0)  # of which the tensor's version does not tell


def _through_numpy(weight: Tensor) -> None:
    values = weight.detach().numpy()
    values *= 2.0


def _other_memory(weight: Tensor) -> None:
    weight.data = weight.data * 2.0


@pytest.mark.parametrize("change", (_in_place, _through_data, _through_numpy, _other_memory))
@pytest.mark.parametrize("precision", convs.PRECISIONS)
@pytest.mark.parametrize("conv", CALLS, ids=str)
def test_a_changed_filter_is_seen(
    conv: Conv, precision: str, change: Callable[[Tensor], None]
) -> None:
    tensors = {name: t for name, t in conv.tensors().items() if name != "residual"}
    tensors["weight"] = torch.nn.Parameter(tensors["weight"])
    first = conv(tensors, backend="cpu", precision=precision)
    again = conv(tensors, backend="cpu", precision=precision)
    change(tensors["weight"])
    changed = conv(tensors, backend="cpu", precision=precision)
    assert torch.equal(first, again)
    assert torch.equal(changed, first * 2.0)  # exact: two is a power of two


def test_load_state_dict_is_seen() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(20, 20, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return vk.conv3x3(x, self.weight, backend="cpu")

    x, layer, other = torch.randn(1, 20, 9, 9), Layer(), Layer()
    expected = other(x)
    assert not torch.equal(layer(x), expected)
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("conv", CALLS, ids=str)
def test_filters_that_follow_each_other_in_the_same_memory(conv: Conv) -> None:
    tensors = conv.tensors()
    for _ in range(8):
        tensors["weight"] = torch.randn(conv.tensors()["weight"].shape)
        got = conv(tensors, backend="cpu")
        torch.testing.assert_close(got, conv(tensors, backend="reference"), rtol=0, atol=1e-2)
        del tensors["weight"]


def test_both_tiers_and_both_uses_of_a_filter_are_kept_apart() -> None:
    """The same memory as a filter of two ops, in two tiers."""
    x, weight = torch.randn(1, 20, 8, 8), torch.randn(20, 20, 4, 4)
    calls = [
        lambda op=op, precision=precision: getattr(vk, op)(
            x, weight, precision=precision, backend="cpu"
        )
        for op in ("downsample_conv4x4", "conv_transpose4x4")
        for precision in convs.PRECISIONS
    ]
    first = [call() for call in calls]
    for _ in range(2):
        for call, expected in zip(calls, first, strict=True):
            assert torch.equal(call(), expected)


def test_a_view_of_a_filter_is_another_filter() -> None:
    x, weight = torch.randn(1, 20, 9, 9), torch.randn(20, 20, 3, 3)
    for view in (weight, weight.transpose(0, 1), weight.flip(3), weight.transpose(2, 3)):
        for _ in range(2):
            got = vk.conv3x3(x, view, backend="cpu")
            expected = vk.conv3x3(x, view, backend="reference")
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-2)


def test_inference_mode_where_tensors_have_no_version() -> None:
    with torch.inference_mode():
        x, weight = torch.randn(1, 20, 9, 9), torch.randn(20, 20, 3, 3)
        first = vk.conv3x3(x, weight, backend="cpu")
        weight.mul_(2.0)
        assert torch.equal(vk.conv3x3(x, weight, backend="cpu"), first * 2.0)


def test_training_and_inference_in_turn() -> None:
    weight = torch.nn.Parameter(torch.randn(20, 20, 3, 3))
    x = torch.randn(2, 20, 9, 9)
    optimiser = torch.optim.SGD([weight], lr=1e-3)
    for _ in range(3):
        with torch.enable_grad():
            vk.conv3x3(x, weight, backend="cpu").square().mean().backward()
        optimiser.step()
        got = vk.conv3x3(x, weight, backend="cpu")
        fresh = vk.conv3x3(x, weight.detach().clone(), backend="cpu")
        assert torch.equal(got, fresh)
