"""``vk.explain`` of ops: the backend and algorithm of a call, without executing it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from vaekernels.backends import extension
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench import op_inputs

X, W, B = torch.zeros(1, 64, 64, 64), torch.zeros(64, 64, 3, 3), torch.zeros(64)
NORM = vk.NormPrologue(torch.ones(64), torch.zeros(64), 8)

compiled = pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")


def _call(op: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Valid arguments of the op."""
    if op == "randn":
        return ((4, 5),), {"seed": 7}
    shape = {
        **dict.fromkeys(op_inputs.LATENT, (3, 8)),
        **dict.fromkeys(op_inputs.NORM, (2, 8, 4, 4)),
    }
    made = op_inputs.ALL[op].inputs(
        shape.get(op, (2, 16, 16, 9, 8)), torch.float32, torch.Generator().manual_seed(0)
    )
    if op == "group_norm_silu":
        return made, {"groups": 2}
    return made, {}


@pytest.mark.parametrize("op", DEFINITIONS)
def test_every_op_by_name_and_by_function(op: str) -> None:
    args, kwargs = _call(op)
    found = vk.explain(op, *args, **kwargs)
    assert found == vk.explain(getattr(vk, op), *args, **kwargs)
    assert found.op == op
    assert found.backend == ("reference" if extension.refusals() else "cpu")
    assert found.refusals.keys() <= {"cpu", "cuda", "triton"} - {found.backend}
    assert all(found.refusals.values())
    assert str(found).startswith(f"{op} runs on {found.backend}")
    algorithms = (found.forward, found.x_gradient, found.weight_gradient)
    assert all((algorithm is not None) == (op in op_inputs.CONV) for algorithm in algorithms)


@compiled
def test_nothing_runs_and_no_noise_is_drawn() -> None:
    state = torch.get_rng_state()
    mean = torch.full((2, 3), torch.nan)
    vk.explain("rsample_kl", mean, mean)
    vk.explain("conv3x3", X.expand(2**30, -1, -1, -1), W)  # a result of a petabyte
    assert torch.equal(torch.get_rng_state(), state)


@compiled
def test_the_printed_lines() -> None:
    lines = str(vk.explain(vk.conv3x3, X, W, B, norm=NORM, residual=X)).splitlines()
    assert lines[0] == "conv3x3 runs on cpu"
    for line, direction in zip(
        lines[1:4], ("forward", "gradient of x", "gradient of weight"), strict=True
    ):
        assert line.split("  winograd")[0].strip() == direction
        assert "winograd F(4x4, 3x3): the cost model expects" in line
    assert "  not cuda            conv3x3 has no cuda kernels" in lines


@compiled
@pytest.mark.parametrize(
    ("op", "high", "highest"),
    [
        ("conv3x3", ("F(4x4, 3x3)",) * 3, ("F(2x2, 3x3)",) * 3),
        (
            "upsample_conv3x3",
            ("F(4x4, 3x3), upsampling folded", "F(4x4, 2x2)", "F(4x4, 3x3), upsampling folded"),
            ("F(2x2, 3x3), upsampling folded", "F(2x2, 2x2)", "F(2x2, 3x3), upsampling folded"),
        ),
        ("downsample_conv4x4", ("F(4x4, 2x2)",) * 3, ("F(2x2, 2x2)",) * 3),
        ("conv_transpose4x4", ("F(4x4, 2x2)",) * 3, ("F(2x2, 2x2)",) * 3),
    ],
)
def test_the_algorithm_of_each_direction_and_tier(
    op: str, high: tuple[str, ...], highest: tuple[str, ...]
) -> None:
    weight = W if op in ("conv3x3", "upsample_conv3x3") else torch.zeros(64, 64, 4, 4)
    for precision, expected in (("medium", high), ("high", high), ("highest", highest)):
        found = vk.explain(op, X, weight, precision=precision)
        algorithms = (found.forward, found.x_gradient, found.weight_gradient)
        for algorithm, name in zip(algorithms, expected, strict=True):
            assert algorithm is not None
            assert algorithm.name in (f"winograd {name}", "library")
            assert "of a direct convolution" in algorithm.reason
        with vk.set_conv_precision(precision):
            assert vk.explain(op, X, weight) == found


@compiled
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_three_channels_use_no_transform(conv: convs.Conv) -> None:
    for incoming, outgoing in ((3, 64), (64, 3)):
        shape = (2, incoming, outgoing, 16, 16)
        x, weight, _ = op_inputs.CONV[conv.op].inputs(shape, torch.float32, torch.Generator())
        options = {} if conv.padding is None else {"padding": conv.padding}
        found = vk.explain(conv.op, x, weight, **options)
        from_few, to_few = found.forward, found.x_gradient
        if outgoing == 3:
            from_few, to_few = to_few, from_few
        algorithms = {"few_outputs": to_few, "few_inputs": from_few, "": found.weight_gradient}
        for name, algorithm in algorithms.items():
            assert algorithm is not None
            assert algorithm.name in ("library", name or "few_inputs")
            assert "channels (3)" in algorithm.reason


@compiled
def test_few_channels_have_their_own_algorithms() -> None:
    image, latent = torch.zeros(2, 3, 16, 16), torch.zeros(2, 64, 8, 8)
    encoder = vk.explain("downsample_conv4x4", image, torch.zeros(64, 3, 4, 4))
    decoder = vk.explain("conv_transpose4x4", latent, torch.zeros(64, 3, 4, 4))
    algorithms = (encoder.forward, encoder.x_gradient, encoder.weight_gradient)
    assert [algorithm and algorithm.name for algorithm in algorithms] == [
        "few_inputs",
        "few_outputs",
        "few_inputs",
    ]
    algorithms = (decoder.forward, decoder.x_gradient, decoder.weight_gradient)
    assert [algorithm and algorithm.name for algorithm in algorithms] == [
        "few_outputs",
        "few_inputs",
        "few_inputs",
    ]


@compiled
def test_a_trained_filter_is_transformed_at_each_call() -> None:
    """With few tiles of many channels Winograd is faster only for kept filters."""
    x, weight = torch.zeros(1, 512, 8, 8), torch.zeros(512, 512, 3, 3, requires_grad=True)
    trained = vk.explain("conv3x3", x, weight)
    with torch.no_grad():
        inference = vk.explain("conv3x3", x, weight)
    frozen = vk.explain("conv3x3", x, weight.detach())
    assert inference.forward == frozen.forward != trained.forward
    assert inference.x_gradient == trained.x_gradient != frozen.x_gradient
    assert inference.weight_gradient == trained.weight_gradient == frozen.weight_gradient


def test_reasons_for_the_reference() -> None:
    with vk.use_backend("reference"):
        asked = vk.explain("conv3x3", X, W)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = vk.explain("conv3x3", X, W)
    double = vk.explain("conv3x3", X.double(), W.double())
    meta = vk.explain("conv3x3", X.to("meta"), W.to("meta"))
    for found in (asked, cast, double, meta, vk.explain("conv3x3", X, W, backend="reference")):
        assert found.backend == "reference"
        assert found.forward is not None
        assert found.forward.name == "library"
    assert any("conv3x3 has no kernels for torch.float64" in r for r in double.refusals["cpu"])
    assert any("torch.bfloat16" in reason for reason in cast.refusals["cpu"])
    assert any("tensors are on meta" in reason for reason in meta.refusals["cpu"])


@compiled
def test_an_empty_batch_and_a_norm_run_before() -> None:
    assert "empty" in str(vk.explain("conv3x3", X[:0], W))
    found = vk.explain("conv3x3", X, W, norm=NORM, recompute=None)
    assert found == vk.explain("conv3x3", X, W)


def test_errors_are_those_of_the_call() -> None:
    with pytest.raises(ValueError, match=r"explain: op must be one of .*conv3x3.*; got 'conv5x5'"):
        vk.explain("conv5x5", X, W)
    with pytest.raises(ValueError, match="explain: op must be one of .*; got <built-in method co"):
        vk.explain(torch.conv2d, X, W)
    with pytest.raises(TypeError, match="explain: op must be a name, a function or a m.*; got int"):
        vk.explain(3, X, W)
    with pytest.raises(TypeError, match=r"conv3x3\(\) missing 1 required .*'weight'"):
        vk.explain("conv3x3", X)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        vk.explain("conv3x3", X, W, stride=2)
    with pytest.raises(ValueError, match=r"conv3x3: weight must have shape \(Co, 64, 3, 3\)"):
        vk.explain("conv3x3", X, W[:, :3])
    with pytest.raises(TypeError, match="conv3x3: x must be a tensor; got list"):
        vk.explain("conv3x3", [1.0], W)
    with pytest.raises(vk.BackendError, match="conv3x3 has no cuda kernels"):
        vk.explain("conv3x3", X, W, backend="cuda")


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        x: Tensor = mode.from_tensor(X)
        assert vk.explain("conv3x3", x, W) == vk.explain("conv3x3", X, W)
