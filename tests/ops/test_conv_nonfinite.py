"""NaN and infinity in the convolutions: a NaN of PyTorch's is one of ours, with every algorithm.

A Winograd tile may spread a NaN to its neighbours, and turns infinities into NaN.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import convs
from tests.ops.convs import ACTIVATIONS, Conv
from vaekernels.backends.reference._activate import activate

pytestmark = pytest.mark.usefixtures("capability")

NAN, INFINITY = math.nan, math.inf
BIG = (3e38, 1e38, 1e20, 88.0, 0.0, -86.0, -88.0, -1e20, -1e37, -1e38)

# Of each op, a shape for each algorithm that its forward may take.
CALLS = {
    "few_outputs": [
        Conv("conv3x3", (1, 16, 3, 9, 10), residual=True),
        Conv("conv_transpose4x4", (1, 16, 3, 6, 7)),
    ],
    "few_inputs": [
        Conv("conv3x3", (1, 3, 20, 9, 10), residual=True),
        Conv("downsample_conv3x3", (1, 3, 20, 9, 10), padding="asymmetric"),
        Conv("downsample_conv3x3", (1, 3, 20, 9, 10), padding="symmetric"),
        Conv("downsample_conv4x4", (1, 3, 20, 9, 10)),
    ],
    "winograd": [
        Conv("conv3x3", (1, 24, 20, 17, 18), residual=True),
        Conv("upsample_conv3x3", (1, 24, 20, 17, 18)),
        Conv("downsample_conv3x3", (1, 96, 96, 66, 66), padding="asymmetric"),
        Conv("downsample_conv4x4", (1, 32, 32, 34, 34)),
        Conv("conv_transpose4x4", (1, 32, 32, 17, 18)),
    ],
    "library": [
        Conv("conv3x3", (1, 2, 2, 5, 6), residual=True),
        Conv("upsample_conv3x3", (1, 2, 2, 5, 6)),
        Conv("downsample_conv3x3", (1, 5, 3, 5, 6), padding="symmetric"),
        Conv("downsample_conv4x4", (1, 5, 3, 5, 6)),
        Conv("conv_transpose4x4", (1, 2, 2, 5, 6)),
    ],
}
EVERY_ALGORITHM = [(algorithm, conv) for algorithm, calls in CALLS.items() for conv in calls]


def algorithm_of(conv: Conv) -> str:
    """Which algorithm the forward takes."""
    options = {} if conv.padding is None else {"padding": conv.padding}
    tensors = conv.tensors()
    explanation = vk.explain(getattr(vk, conv.op), tensors["x"], tensors["weight"], **options)
    return explanation.forward.name.split()[0]


def check(conv: Conv, tensors: dict[str, Tensor], algorithm: str, what: str) -> None:
    with torch.no_grad():
        got = conv(tensors, backend="cpu")
        expected = conv(tensors, backend="reference")
    lost = expected.isnan() & ~got.isnan()
    assert not lost.any(), f"{what}: {int(lost.sum())} NaN lost"
    # Whether a tap is multiplied by the zeros of the border is nobody's promise.
    if algorithm != "winograd" and not what.startswith("weight"):
        assert torch.equal(got.isnan(), expected.isnan()), f"{what}: NaN in other places"
    both = got.isfinite() & expected.isfinite()
    torch.testing.assert_close(got[both], expected[both], rtol=1e-4, atol=1e-4, msg=what)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("algorithm", "conv"), EVERY_ALGORITHM, ids=lambda v: convs.name_of(v) or str(v)
)
def test_a_value_that_is_not_finite(algorithm: str, conv: Conv, activation: str | None) -> None:
    conv = replace(conv, activation=activation)
    assert algorithm_of(conv) == algorithm
    for value in (NAN, INFINITY, -INFINITY):
        for name in ("x", "weight", "bias", "residual"):
            clean = conv.tensors()
            if name not in clean:
                continue
            for place in ("first", "middle"):
                tensors = {key: tensor.clone() for key, tensor in clean.items()}
                at = 0 if place == "first" else tensors[name].numel() // 2 - 3
                tensors[name].view(-1)[max(at, 0)] = value
                check(conv, tensors, algorithm, f"{name} {place} {value}")


@pytest.mark.parametrize(
    ("activation", "slope"),
    [("relu", 0.0), ("silu", 0.0), *(("leaky_relu", slope) for slope in (0.0, 0.2, 1.0, 3.0))],
)
@pytest.mark.parametrize("algorithm", CALLS)
def test_activations_of_numbers_of_any_size(algorithm: str, activation: str, slope: float) -> None:
    """An image of zeros: results are activations of the bias."""
    for conv in CALLS[algorithm]:
        tensors = conv.tensors()
        options = {} if conv.padding is None else {"padding": conv.padding}
        x, weight, outputs = torch.zeros_like(tensors["x"]), tensors["weight"], len(tensors["bias"])
        for first in range(0, len(BIG), outputs):
            bias = torch.tensor([BIG[(first + k) % len(BIG)] for k in range(outputs)])
            y = getattr(vk, conv.op)(
                *(x, weight, bias),
                activation=activation,
                negative_slope=slope,
                backend="cpu",
                **options,
            )
            expected = activate(bias, activation, slope).view(1, -1, 1, 1).expand_as(y)
            assert expected.isfinite().all()
            torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-35)


@pytest.mark.parametrize("activation", ("relu", "leaky_relu"))
@pytest.mark.parametrize("slope", (0.0, 0.2, 3.0))
def test_the_epilogues_gradient_is_that_of_pytorch(activation: str, slope: float) -> None:
    """Where results are NaN, zero or infinite, for gradients that may be so too."""
    values = torch.tensor([NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0, -1.0, 2.0, -3.0])
    y, grad = (part.reshape(1, 9, 9, 1) for part in torch.meshgrid(values, values, indexing="ij"))
    y, grad = y.contiguous(), grad.contiguous()
    weight, x = torch.zeros(9, 1, 3, 3), torch.zeros(1, 1, 9, 1)
    masked = grad.clone()
    aten = torch.ops.aten
    if activation == "relu":
        masked = aten.threshold_backward(grad, y, 0)
    else:
        masked = aten.leaky_relu_backward(grad, y, slope, True)
    settings = (1, 1e-6, activation, slope, "high")
    result = torch.ops.vaekernels.conv3x3_backward(
        *(grad, x, weight, torch.zeros(9), torch.zeros_like(y), None, None, *settings, y),
        [False, False, True, True, False, False],
    )
    torch.testing.assert_close(result[3], masked, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(result[2], masked.sum((0, 2, 3)), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("channels", (4, 96))
@pytest.mark.parametrize("value", (NAN, INFINITY, -INFINITY))
def test_the_normalisation_before(value: float, channels: int) -> None:
    """A group with such a value is NaN, and all that is made of it."""
    conv = Conv("conv3x3", (2, channels, 20, 9, 10), groups=4)
    tensors = conv.tensors()
    tensors["x"][1, 0, 3, 3] = value
    got, expected = conv(tensors, backend="cpu"), conv(tensors, backend="reference")
    assert torch.equal(got.isnan(), expected.isnan())
    assert got[1].isnan().all()
    assert got[0].isfinite().all()
