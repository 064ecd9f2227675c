"""Transformed filters are kept; they are never used after their weight was written."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from tests.ops.convs import Conv
from vaekernels.backends import extension as _extension

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


def _through_dlpack(weight: Tensor) -> None:
    torch.from_dlpack(weight.detach()).mul_(2.0)


def _through_the_storage(weight: Tensor) -> None:
    other = torch.empty(0).set_(weight.untyped_storage())
    other.mul_(2.0)


def _in_inference_mode(weight: Tensor) -> None:
    with torch.inference_mode():
        weight.data.mul_(2.0)


def _other_memory(weight: Tensor) -> None:
    weight.data = weight.data * 2.0


def _by_fused_sgd(weight: Tensor) -> None:
    weight.grad = -weight.detach().clone()
    torch.optim.SGD([weight], lr=1.0, fused=True).step()


def _by_foreach(weight: Tensor) -> None:
    torch._foreach_mul_([weight.data], 2.0)


def _by_swapping(weight: Tensor) -> None:
    torch.utils.swap_tensors(weight, torch.nn.Parameter(weight.detach() * 2.0))


CHANGES = (
    *(_in_place, _through_data, _through_numpy, _through_dlpack, _through_the_storage),
    *(_in_inference_mode, _other_memory, _by_fused_sgd, _by_foreach, _by_swapping),
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("conv", CALLS, ids=str)
def test_a_changed_filter_is_seen(conv: Conv, change: Callable[[Tensor], None]) -> None:
    tensors = {name: t for name, t in conv.tensors().items() if name != "residual"}
    tensors["weight"] = torch.nn.Parameter(tensors["weight"])
    first = conv(tensors, backend="cpu")
    again = conv(tensors, backend="cpu")
    change(tensors["weight"])
    changed = conv(tensors, backend="cpu")
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


@pytest.fixture
def extension() -> Iterator[Any]:
    """The library; its capability is set back."""
    library = _extension.load()
    best = library.cpu_capability()
    yield library
    library.set_cpu_capability(best)


@pytest.mark.parametrize("taps", (3, 4))
def test_what_is_kept_for_one_call_serves_no_other(taps: int, extension: Any) -> None:
    """The same memory as the filter of several ops, in both tiers, on each capability."""
    x, weight = torch.randn(1, 20, 8, 8), torch.randn(20, 20, taps, taps)
    ops = {
        3: ("conv3x3", "upsample_conv3x3", "downsample_conv3x3"),
        4: ("downsample_conv4x4", "conv_transpose4x4"),
    }[taps]

    def call(op: str, precision: str, capability: str, weight: Tensor) -> Tensor:
        extension.set_cpu_capability(capability)
        return getattr(vk, op)(x, weight, precision=precision, backend="cpu")

    calls = list(itertools.product(ops, convs.PRECISIONS, extension.cpu_capabilities()))
    # A filter of its own for each: nothing can have been kept.
    weights = [weight.clone() for _ in calls]
    first = [call(*each, own) for each, own in zip(calls, weights, strict=True)]
    for _ in range(2):
        for each, expected in zip(calls, first, strict=True):
            assert torch.equal(call(*each, weight), expected), each


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
    optimiser = torch.optim.SGD([weight], lr=1e-3, fused=True)
    for _ in range(3):
        with torch.enable_grad():
            vk.conv3x3(x, weight, backend="cpu").square().mean().backward()
        optimiser.step()
        got = vk.conv3x3(x, weight, backend="cpu")
        fresh = vk.conv3x3(x, weight.detach().clone(), backend="cpu")
        assert torch.equal(got, fresh)


@pytest.mark.parametrize("conv", CALLS, ids=str)
def test_a_change_of_any_single_value_is_seen(conv: Conv) -> None:
    """By the smallest step that a float can make, in memory that nobody tells of."""
    tensors = conv.tensors()
    weight = tensors["weight"]
    flat = weight.view(-1)
    for position in torch.randperm(weight.numel())[:12].tolist():
        conv(tensors, backend="cpu")
        bits = flat.view(torch.int32).numpy()
        bits[position] ^= 1
        got = conv(tensors, backend="cpu")
        fresh = conv({**tensors, "weight": weight.clone()}, backend="cpu")
        assert torch.equal(got, fresh)


def test_parameters_that_are_views_of_one_buffer() -> None:
    """As optimisers and wrappers flatten them: writes go to the buffer."""
    flat = torch.randn(2 * 20 * 20 * 9)
    weights = [torch.nn.Parameter(half.view(20, 20, 3, 3)) for half in flat.chunk(2)]
    x = torch.randn(1, 20, 9, 9)
    for _ in range(3):
        for weight in weights:
            fresh = vk.conv3x3(x, weight.detach().clone(), backend="cpu")
            assert torch.equal(vk.conv3x3(x, weight, backend="cpu"), fresh)
        flat.add_(0.1)


def test_a_weight_that_grows_in_place() -> None:
    x = torch.randn(2, 16, 24, 24)
    full = torch.randn(64, 16, 3, 3)
    weight = torch.nn.Parameter(full[:32])
    vk.conv3x3(x, weight, backend="cpu")
    weight.data = full  # the same address and version, and the same first values
    fresh = vk.conv3x3(x, full.clone(), backend="cpu")
    assert torch.equal(vk.conv3x3(x, weight, backend="cpu"), fresh)


@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode))
def test_no_reference_stays_on_a_weight(mode: Callable[[], Any]) -> None:
    """``swap_tensors``, and with it conversions and loading by swapping, refuses such a tensor."""
    conv = torch.nn.Conv2d(16, 16, 3, padding=1)
    with mode():
        vk.conv3x3(torch.randn(1, 16, 8, 8), conv.weight, conv.bias, backend="cpu")
    assert not weakref.getweakrefs(conv.weight)
    torch.utils.swap_tensors(conv.weight, torch.nn.Parameter(conv.weight.detach() + 1))


@pytest.mark.parametrize("trained", (True, False), ids=("trained", "frozen"))
@pytest.mark.parametrize("compiled", (False, True), ids=("eager", "compiled"))
def test_training_equals_that_of_the_reference(compiled: bool, trained: bool) -> None:
    """With a unit whose gradient is zero in all values but a few, as in 1-pixel images."""
    x = torch.randn(8, 16, 1, 1)

    def losses(backend: str) -> list[float]:
        generator = torch.Generator().manual_seed(1)
        weights = [
            torch.nn.Parameter(0.1 * torch.randn(16, 16, 3, 3, generator=generator))
            for _ in range(2)
        ]
        weights[1].requires_grad_(trained)

        def step(x: Tensor) -> Tensor:
            h = vk.conv3x3(x, weights[0], activation="relu", backend=backend)
            return vk.conv3x3(h, weights[1], backend=backend).square().mean()

        run = torch.compile(step) if compiled else step
        adam = torch.optim.Adam(weights, lr=1e-2, fused=True)
        found = []
        for _ in range(12):
            with torch.enable_grad():
                loss = run(x)
                loss.backward()
            adam.step()
            adam.zero_grad()
            weights[1].data.mul_(1.01)  # frozen, but written
            found.append(loss.item())
            found.append(step(x).item())  # evaluated between the steps
        return found

    assert losses("cpu") == pytest.approx(losses("reference"), rel=1e-4)
