"""The convolutions under autograd, torch's op checks and torch.compile."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import vaekernels as vk
from tests.ops import convs
from tests.ops.conformance import in_layout
from tests.ops.convs import ACTIVATIONS, BACKENDS, Conv
from vaekernels.backends import extension
from vaekernels.backends.definitions import DEFINITIONS

CALLS = convs.every_op((2, 4, 3, 6, 5))
SMALL = convs.every_op((1, 2, 2, 4, 3))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    convs.skip_if_refused(request.param)
    return request.param


@pytest.fixture
def cpu() -> str:
    convs.skip_if_refused("cpu")
    return "cpu"


def _leaves(conv: Conv, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: t.to(dtype).requires_grad_() for name, t in conv.tensors().items()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("conv", SMALL, ids=convs.name_of)
def test_gradcheck_of_the_reference(conv: Conv, activation: str | None) -> None:
    conv = replace(conv, activation=activation)
    leaves = _leaves(conv, torch.float64)

    def function(*values: Tensor) -> Tensor:
        return conv(dict(zip(leaves, values, strict=True)))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@pytest.mark.parametrize("conv", SMALL, ids=convs.name_of)
def test_double_backward_of_the_reference(conv: Conv) -> None:
    conv = replace(conv, activation="silu", groups=None)
    leaves = _leaves(conv, torch.float64)

    def function(*values: Tensor) -> Tensor:
        return conv(dict(zip(leaves, values, strict=True)), backend="reference")

    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))


@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_double_backward_of_the_fused_op_says_that_it_is_not_there(conv: Conv, cpu: str) -> None:
    leaves = list(_leaves(conv).values())
    y = conv(dict(zip(conv.tensors(), leaves, strict=True)), backend=cpu)
    (grad, *_) = torch.autograd.grad(y.sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{conv.op}: double backward.*reference"):
        grad.sum().backward()


@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_a_second_backward_through_the_same_graph(conv: Conv, backend: str) -> None:
    leaves = _leaves(conv)
    y = conv(leaves, backend=backend)
    first = torch.autograd.grad(y.sum(), list(leaves.values()), retain_graph=True)
    second = torch.autograd.grad(y.sum(), list(leaves.values()))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_changing_what_backward_needs_is_an_error(conv: Conv, cpu: str) -> None:
    leaves = _leaves(conv)
    changed = {**leaves, "x": leaves["x"] * 1.0}
    y = conv(changed, backend=cpu)
    changed["x"].detach().add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_relu_reads_its_mask_from_the_result(cpu: str) -> None:
    conv = Conv("conv3x3", (1, 2, 2, 4, 4), activation="relu")
    y = conv(_leaves(conv), backend=cpu)
    y.detach().mul_(-1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def _arguments(conv: Conv, activation: str | None) -> dict[str, object]:
    """Those of the torch op, by name."""
    values = {
        **conv.tensors(),
        "norm_groups": conv.groups or 1,
        "norm_eps": 1e-6,
        "padding": conv.padding,
        "activation": activation,
        "negative_slope": 0.1,
        "precision": "high",
    }
    operator = getattr(torch.ops.vaekernels, conv.op).default
    return {a.name: values.get(a.name) for a in operator._schema.arguments}


@pytest.mark.parametrize("activation", (None, "leaky_relu"))
@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_opcheck(conv: Conv, activation: str | None, cpu: str) -> None:
    extension.load()
    arguments = _arguments(conv, activation)
    operator = getattr(torch.ops.vaekernels, conv.op).default
    y = operator(*arguments.values())
    backward = getattr(torch.ops.vaekernels, f"{conv.op}_backward").default
    differentiable = DEFINITIONS[conv.op].differentiable
    present = [arguments[name] is not None for name in differentiable]
    for mask in (present, [name == "x" for name in differentiable]):
        inputs = tuple(arguments.values())
        torch.library.opcheck(backward, (convs.random_like(y), *inputs, y, mask))
    for value in arguments.values():
        if isinstance(value, Tensor):
            value.requires_grad_()
    torch.library.opcheck(operator, tuple(arguments.values()))


FILTER_LAYOUTS = {
    "channels_last": lambda w: w.contiguous(memory_format=torch.channels_last),
    "exchanged": lambda w: w.transpose(0, 1).contiguous().transpose(0, 1),
    "taps first": lambda w: w.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "every second": lambda w: torch.stack([w, w], -1)[..., 0],
    "expanded": lambda w: w[:1].expand(w.shape),
}
# Small and large, and with few channels on either side: every way of the filters' gradient.
WAYS = ((2, 4, 3, 6, 5), (2, 3, 16, 9, 8), (2, 16, 3, 9, 8), (2, 16, 1, 9, 8), (2, 32, 32, 18, 18))


@pytest.mark.parametrize("layout", FILTER_LAYOUTS)
@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_the_filters_gradient_lies_as_the_filters(conv: Conv, layout: str, cpu: str) -> None:
    """In the strides of empty_like(weight), which are those that its fake promises."""
    for shape in WAYS:
        conv = replace(conv, shape=shape, groups=None)
        tensors = conv.tensors()
        weight = tensors["weight"] = FILTER_LAYOUTS[layout](tensors["weight"])
        gradient = conv.results(tensors, None, backend=cpu)["weight"]
        assert gradient.stride() == torch.empty_like(weight).stride(), shape
        dense = {**tensors, "weight": weight.contiguous()}
        expected = conv.results(dense, None, backend=cpu)["weight"]
        bound = 2 * convs.HIGH * expected.abs().max().item()
        torch.testing.assert_close(gradient, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("layout", FILTER_LAYOUTS)
@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_opcheck_of_backward_with_filters_in_other_strides(
    conv: Conv, layout: str, cpu: str
) -> None:
    extension.load()
    arguments = _arguments(conv, None)
    arguments["weight"] = FILTER_LAYOUTS[layout](arguments["weight"])
    y = getattr(torch.ops.vaekernels, conv.op).default(*arguments.values())
    backward = getattr(torch.ops.vaekernels, f"{conv.op}_backward").default
    present = [arguments[name] is not None for name in DEFINITIONS[conv.op].differentiable]
    inputs = (convs.random_like(y), *arguments.values(), y, present)
    torch.library.opcheck(backward, inputs, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.slow
@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_inductor_trains_channels_last_filters(conv: Conv, cpu: str) -> None:
    torch._dynamo.reset()
    conv = replace(conv, layout="channels_last")
    tensors = conv.tensors()
    for name in ("x", "weight"):
        tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    leaves = {name: t.requires_grad_() for name, t in tensors.items()}

    def loss(leaves: dict[str, Tensor]) -> Tensor:
        return conv(leaves, backend=cpu).square().mean()

    expected = torch.autograd.grad(loss(leaves), list(leaves.values()))
    got = torch.autograd.grad(torch.compile(loss)(leaves), list(leaves.values()))
    for name, a, b in zip(leaves, got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
        assert a.stride() == b.stride(), name


@pytest.mark.parametrize("conv", CALLS, ids=convs.name_of)
def test_compiled_whole(conv: Conv, backend: str) -> None:
    torch._dynamo.reset()
    conv = replace(conv, activation="silu")
    tensors = conv.tensors()
    expected = conv.results(tensors, None, backend=backend)
    leaves = {name: t.requires_grad_() for name, t in tensors.items()}
    compiled = torch.compile(conv.__call__, fullgraph=True, backend="aot_eager")
    y = compiled(leaves, backend=backend)
    got = torch.autograd.grad(y, list(leaves.values()), convs.random_like(y))
    for name, value in zip(("y", *leaves), (y.detach(), *got), strict=True):
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_no_recompile_on_a_second_shape_of_the_same_rank(backend: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    weight, filters = torch.randn(3, 3, 3, 3), torch.randn(3, 3, 4, 4)
    norm = vk.NormPrologue(torch.ones(3), torch.zeros(3), 3)

    def network(x: Tensor) -> Tensor:
        x = vk.conv3x3(x, weight, norm=norm, residual=x, backend=backend)
        x = vk.downsample_conv3x3(x, weight, activation="silu", backend=backend)
        x = vk.downsample_conv4x4(x, filters, backend=backend)
        x = vk.upsample_conv3x3(x, weight, backend=backend)
        return vk.conv_transpose4x4(x, filters, activation="relu", backend=backend)

    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    for batch, height, width in ((2, 8, 12), (3, 13, 9), (5, 21, 40)):
        x = torch.randn(batch, 3, height, width)
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", ("contiguous", "channels_last"))
def test_inductor_reads_the_layouts_that_kernels_write(layout: str, cpu: str) -> None:
    """It takes the strides of results and gradients from the fakes."""
    torch._dynamo.reset()
    weight = torch.randn(4, 4, 3, 3, requires_grad=True)
    x = in_layout(torch.randn(2, 4, 6, 5), layout).requires_grad_()

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        y = vk.conv3x3(x * 2.0, weight, residual=x, activation="relu", backend=cpu)
        return (y.transpose(2, 3) * 3.0).square().sum()

    expected = torch.autograd.grad(loss(x, weight), (x, weight))
    compiled = torch.compile(loss, fullgraph=True)
    got = torch.autograd.grad(compiled(x, weight), (x, weight))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
