"""The convolutions against float64: options, shapes, layouts, capabilities, threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.ops import convs
from tests.ops.conformance import LAYOUTS
from tests.ops.convs import ACTIVATIONS, BACKENDS, Conv
from vaekernels.backends import extension as _extension
from vaekernels.bench.op_inputs import CONV, ConvShape
from vaekernels.bench.op_inputs.convolutions import RESNET, groups_of

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    convs.skip_if_refused(request.param)
    return request.param


@pytest.fixture
def cpu() -> str:
    convs.skip_if_refused("cpu")
    return "cpu"


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("groups", (None, 1, 4, 8))
def test_every_option_of_conv3x3(groups: int | None, activation: str | None, backend: str) -> None:
    for bias in (True, False):
        for residual in (True, False):
            conv = Conv("conv3x3", (2, 8, 12, 9, 7), activation, bias, residual, groups)
            convs.check(conv, backend)


@pytest.mark.parametrize("residual", (True, False))
@pytest.mark.parametrize("groups", (None, 1))
@pytest.mark.parametrize("channels", ((3, 20), (20, 3)))
def test_every_option_of_conv3x3_with_few_channels(
    channels: tuple[int, int], groups: int | None, residual: bool, cpu: str
) -> None:
    for activation in ACTIVATIONS:
        for bias in (True, False):
            conv = Conv("conv3x3", (2, *channels, 9, 7), activation, bias, residual, groups)
            convs.check(conv, cpu)


def test_a_large_result_of_few_channels(cpu: str) -> None:
    """Written past the caches."""
    conv = Conv("conv3x3", (1, 3, 64, 259, 257), "leaky_relu", residual=True)
    tensors = conv.tensors()
    with torch.no_grad():
        got, expected = (conv(tensors, backend=backend) for backend in (cpu, "reference"))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("conv", convs.every_op((2, 8, 12, 9, 7)), ids=convs.name_of)
def test_every_option(conv: Conv, activation: str | None, backend: str) -> None:
    for bias in (True, False):
        convs.check(replace(conv, activation=activation, bias=bias), backend)


ODD_SHAPES = {
    "one": ConvShape(1, 1, 1, 1, 1),
    "two": ConvShape(1, 5, 3, 2, 2),
    "one_channel": ConvShape(3, 1, 1, 5, 7),
    "line": ConvShape(1, 20, 5, 1, 33),
    "column": ConvShape(3, 3, 20, 33, 2),
    "empty_batch": ConvShape(0, 3, 5, 7, 7),
    "empty_batch_wide": ConvShape(0, 96, 20, 33, 5),
    "image_in": ConvShape(3, 3, 96, 33, 33),
    "image_out": ConvShape(3, 96, 3, 33, 33),
    "latent_in": ConvShape(1, 4, 160, 7, 5),
    "odd_to_odd": ConvShape(3, 20, 96, 5, 33),
    "square": ConvShape(1, 96, 96, 33, 33),
    "many_small": ConvShape(17, 20, 20, 4, 4),
}


def _at_least(shape: ConvShape, pixels: int) -> ConvShape:
    return shape._replace(height=max(shape.height, pixels), width=max(shape.width, pixels))


@pytest.mark.parametrize("shape", ODD_SHAPES.values(), ids=ODD_SHAPES)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_odd_shapes(conv: Conv, shape: ConvShape, cpu: str) -> None:
    shape = _at_least(shape, conv.smallest)
    convs.check(replace(conv, shape=shape), cpu)


@pytest.mark.parametrize("shape", (ODD_SHAPES["one_channel"], ODD_SHAPES["empty_batch"]), ids=str)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_odd_shapes_of_the_reference(conv: Conv, shape: ConvShape) -> None:
    convs.check(replace(conv, shape=shape), "reference")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_layouts(conv: Conv, layout: str, cpu: str) -> None:
    for shape in ((3, 5, 7, 6, 5), (2, 16, 32, 8, 8)):
        convs.check(replace(conv, shape=shape, layout=layout), cpu)


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_filters_in_other_strides(conv: Conv, cpu: str) -> None:
    tensors = conv.tensors()
    expected = conv.results(tensors, None, backend=cpu)
    weight = tensors["weight"]
    for other in (
        weight.contiguous(memory_format=torch.channels_last),
        weight.transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([weight, weight], -1)[..., 0],
    ):
        got = conv.results({**tensors, "weight": other}, None, backend=cpu)
        for name, value in got.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_the_result_is_channels_last(conv: Conv, cpu: str) -> None:
    results = conv.results(conv.tensors(), None, backend=cpu)
    for name in {"y", "x", "residual"} & set(results):
        assert results[name].is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_a_gradient_asked_for_alone(conv: Conv, backend: str) -> None:
    tensors = conv.tensors()
    together = conv.results(tensors, None, backend=backend)
    for name in tensors:
        leaf = tensors[name].detach().requires_grad_()
        y = conv({**tensors, name: leaf}, backend=backend)
        (alone,) = torch.autograd.grad(y, leaf, convs.random_like(y))
        torch.testing.assert_close(alone, together[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_the_gradient_of_a_sum(conv: Conv, cpu: str) -> None:
    """The gradient of y is then one number in strides of zero."""
    tensors = conv.tensors()
    leaves = {name: t.requires_grad_() for name, t in tensors.items()}
    got = torch.autograd.grad(conv(leaves, backend=cpu).sum(), list(leaves.values()))
    expected = torch.autograd.grad(conv(leaves, backend="reference").sum(), list(leaves.values()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _work(op: str, shape: tuple[int, ...]) -> float:
    """Multiplications per input pixel and channel pair, about."""
    batch, in_channels, out_channels, height, width = shape
    pixels = batch * height * width * (4 if op == "upsample_conv3x3" else 1)
    return 9.0 * pixels * in_channels * out_channels


REAL = [
    pytest.param(
        Conv(
            op,
            shape,
            padding="asymmetric" if op == "downsample_conv3x3" else None,
            groups=groups_of(shape[1]) if suffix else None,
            residual=bool(suffix),
        ),
        id=f"{op}-{name}{suffix}",
        marks=[pytest.mark.slow] if _work(op, shape) > 1.5e8 else [],
    )
    for cases, suffix in (*((cases, "") for cases in CONV.values()), (RESNET, "-resnet"))
    for op in (cases.op,)
    for name, shape in cases.shapes.items()
]


@pytest.mark.parametrize("conv", REAL)
def test_real_shapes(conv: Conv, cpu: str) -> None:
    convs.check(conv, cpu)


@pytest.fixture
def each_capability() -> Iterator[Iterator[str]]:
    """Switches to one CPU capability after the other."""
    convs.skip_if_refused("cpu")
    extension = _extension.load()
    best = extension.cpu_capability()

    def switch() -> Iterator[str]:
        for capability in extension.cpu_capabilities():
            extension.set_cpu_capability(capability)
            yield capability

    yield switch()
    extension.set_cpu_capability(best)


@pytest.mark.parametrize("channels", ((20, 36), (3, 36), (36, 3)))
@pytest.mark.parametrize("conv", convs.every_op(activation="leaky_relu"), ids=convs.name_of)
def test_every_cpu_capability(
    conv: Conv, channels: tuple[int, int], each_capability: Iterator[str]
) -> None:
    for _ in each_capability:
        convs.check(replace(conv, shape=(2, *channels, 13, 11)), "cpu")


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("conv", convs.every_op((5, 20, 36, 21, 19)), ids=convs.name_of)
def test_the_same_bits_at_every_run(conv: Conv, threads: int, cpu: str) -> None:
    tensors = conv.tensors()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, *others = [conv.results(tensors, None, backend=cpu) for _ in range(4)]
    finally:
        torch.set_num_threads(before)
    for other in others:
        for name, value in other.items():
            assert torch.equal(value, first[name]), name


@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_nan_reaches_what_depends_on_it_and_no_other_image(conv: Conv, cpu: str) -> None:
    tensors = conv.tensors()
    clean = conv(tensors, backend=cpu)
    tensors["x"][1, 2, 3, 3] = float("nan")
    got = conv(tensors, backend=cpu)
    expected = conv(tensors, backend="reference")
    assert got[expected.isnan()].isnan().all()
    assert torch.equal(got[0], clean[0])


@pytest.mark.parametrize("conv", convs.every_op((2, 5, 7, 6, 8)), ids=convs.name_of)
@pytest.mark.parametrize("expanded", (True, False))
def test_vectors_in_any_strides(conv: Conv, expanded: bool, backend: str) -> None:
    """Bias and the normalisation's vectors are read by their strides."""
    dense, spaced = conv.tensors(), conv.tensors()
    for name, vector in dense.items():
        if vector.ndim == 1 and expanded:
            spaced[name] = vector[:1].expand(vector.shape)
            dense[name] = spaced[name].contiguous()
        elif vector.ndim == 1:
            spaced[name] = torch.stack((vector, torch.full_like(vector, 1e9)), 1)[:, 0]
    ours, right = (conv.results(tensors, None, backend=backend) for tensors in (spaced, dense))
    for name, value in right.items():
        assert torch.equal(ours[name], value), name
