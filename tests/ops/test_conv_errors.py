"""Bad input to the convolutions: the argument, what was expected, what came; and autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vaekernels as vk
from tests.ops import convs

X = torch.zeros(2, 6, 8, 7)
W, W4, B = torch.zeros(4, 6, 3, 3), torch.zeros(4, 6, 4, 4), torch.zeros(4)
NORM = vk.NormPrologue(torch.ones(6), torch.zeros(6), 2)


def _norm(**changes: object) -> Callable[[], Tensor]:
    return lambda: vk.conv3x3(X, W, norm=NORM._replace(**changes))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: vk.conv3x3([1.0], W), TypeError, "conv3x3: x must be a tensor; got list"),
        (lambda: vk.conv3x3(X.int(), W), TypeError, "x must be float64.*got torch.int32"),
        (lambda: vk.conv3x3(X[0], W), ValueError, r"x must have shape \(N, C, H, W\); got \(6, 8"),
        (
            lambda: vk.conv3x3(X[:, :, :0], W),
            ValueError,
            r"x must be at least 1 pix.*\(2, 6, 0, 7\)",
        ),
        (lambda: vk.conv3x3(X, "w"), TypeError, "weight must be a tensor; got str"),
        (
            lambda: vk.conv3x3(X, W[:, :5]),
            ValueError,
            r"weight must have shape \(Co, 6, 3, 3\), for the 6 channels of x; got \(4, 5, 3, 3\)",
        ),
        (lambda: vk.conv3x3(X.to_sparse(), W), TypeError, "x must be a dense tensor"),
        (lambda: vk.conv3x3(X, W.to_mkldnn()), TypeError, "weight must be a dense tensor"),
        (lambda: vk.conv3x3(X[:, :0], W), ValueError, "x must have at least one channel"),
        (lambda: vk.conv3x3(X, W, negative_slope="a"), TypeError, "negative_slope must be a num"),
        (lambda: vk.conv3x3(X, W4), ValueError, r"\(Co, 6, 3, 3\).*got \(4, 6, 4, 4\)"),
        (lambda: vk.conv3x3(X, W[0]), ValueError, r"weight must have shape.*got \(6, 3, 3\)"),
        (lambda: vk.conv3x3(X, W[:0]), ValueError, r"weight must have shape.*got \(0, 6, 3, 3\)"),
        (
            lambda: vk.conv3x3(X, W.double()),
            TypeError,
            "weight must have the dtype of x, torch.float32; got torch.float64",
        ),
        (lambda: vk.conv3x3(X, W.to("meta")), ValueError, "weight must be on the device of x, cpu"),
        (
            lambda: vk.conv3x3(X, W, B[:3]),
            ValueError,
            r"bias must have shape \(4,\), one number per channel; got \(3,\)",
        ),
        (lambda: vk.conv3x3(X, W, B.bfloat16()), TypeError, "bias must have the dtype of x"),
        (lambda: vk.conv3x3(X, W, 0.0), TypeError, "bias must be a tensor; got float"),
        (
            lambda: vk.conv3x3(X, W, residual=X),
            ValueError,
            r"residual must have the shape of the result, \(2, 4, 8, 7\); got \(2, 6, 8, 7\)",
        ),
        (
            lambda: vk.conv3x3(X, W, residual=X[:, :4].half()),
            TypeError,
            "residual must have the dtype of x, torch.float32; got torch.float16",
        ),
        (
            lambda: vk.conv3x3(X, W, activation="gelu"),
            ValueError,
            "activation must be None, 'relu', 'silu' or 'leaky_relu'; got 'gelu'",
        ),
        (lambda: vk.conv3x3(X, W, negative_slope=-0.1), ValueError, "negative_slope.*got -0.1"),
        (lambda: vk.conv3x3(X, W, recompute="all"), ValueError, "recompute.*None or 'norm'.*'all'"),
        (lambda: vk.conv3x3(X, W, precision="low"), ValueError, "conv3x3: precision.*got 'low'"),
        (lambda: vk.conv3x3(X, W, backend="mkl"), ValueError, "expected one of cpu, cuda"),
        (lambda: vk.conv3x3(X, W, norm=(B, B, 1)), TypeError, "norm must be a vk.NormPrologue"),
        (_norm(groups=4), ValueError, "norm.groups must divide the 6 channels of x; got 4"),
        (_norm(groups=0), ValueError, "norm.groups must divide.*got 0"),
        (_norm(groups=2.0), TypeError, "norm.groups must be an integer; got float"),
        (_norm(weight=None), TypeError, "norm.weight must be a tensor; got NoneType"),
        (_norm(bias=B), ValueError, r"norm.bias must have shape \(6,\).*got \(4,\)"),
        (_norm(bias=torch.zeros(6).double()), TypeError, "norm.bias must have the dtype of x"),
        (_norm(eps=-1.0), ValueError, "norm.eps must not be negative; got -1.0"),
        (_norm(eps=float("nan")), ValueError, "norm.eps must not be negative; got nan"),
        (_norm(eps="small"), TypeError, "norm.eps must be a float; got str"),
        (lambda: vk.upsample_conv3x3(X, W4), ValueError, r"upsample_conv3x3: weight.*6, 3, 3\)"),
        (
            lambda: vk.downsample_conv3x3(X, W, padding="same"),
            ValueError,
            "padding must be 'asymmetric' or 'symmetric'; got 'same'",
        ),
        (
            lambda: vk.downsample_conv3x3(X[..., :1], W),
            ValueError,
            r"downsample_conv3x3: x must be at least 2 pixels high and wide; got \(2, 6, 8, 1\)",
        ),
        (lambda: vk.downsample_conv4x4(X, W), ValueError, r"\(Co, 6, 4, 4\).*got \(4, 6, 3, 3\)"),
        (lambda: vk.downsample_conv4x4(X[:, :, :1], W4), ValueError, "at least 2 pixels high"),
        (
            lambda: vk.conv_transpose4x4(X, W4),
            ValueError,
            r"conv_transpose4x4: weight must have shape \(6, Co, 4, 4\).*got \(4, 6, 4, 4\)",
        ),
        (
            lambda: vk.conv_transpose4x4(X[:, :4], W4, B),
            ValueError,
            r"bias must have shape \(6,\).*got \(4,\)",
        ),
    ],
)
def test_message(call: Callable[[], Tensor], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_the_cpu_kernels_say_what_they_do_not_take() -> None:
    convs.skip_if_refused("cpu")
    with pytest.raises(vk.BackendError, match="conv3x3 has no kernels for torch.float64"):
        vk.conv3x3(X.double(), W.double(), backend="cpu")
    with pytest.raises(vk.BackendError, match="conv3x3 has no cuda kernels"):
        vk.conv3x3(X, W, backend="cuda")


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16), ids=str)
@pytest.mark.parametrize("conv", convs.every_op(), ids=convs.name_of)
def test_other_dtypes_run_the_reference(conv: convs.Conv, dtype: torch.dtype) -> None:
    tensors = {name: t.to(dtype) for name, t in conv.tensors().items()}
    y = conv(tensors)
    assert y.dtype == dtype
    assert torch.equal(y, conv(tensors, backend="reference"))


def test_smallest_images() -> None:
    one, two = X[:, :, :1, :1], X[:, :, :2, :2]
    assert vk.conv3x3(one, W).shape == (2, 4, 1, 1)
    assert vk.upsample_conv3x3(one, W).shape == (2, 4, 2, 2)
    assert vk.downsample_conv3x3(one, W, padding="symmetric").shape == (2, 4, 1, 1)
    assert vk.downsample_conv3x3(two, W).shape == (2, 4, 1, 1)
    assert vk.downsample_conv4x4(two, W4).shape == (2, 4, 1, 1)
    assert vk.conv_transpose4x4(one[:, :4], W4).shape == (2, 6, 2, 2)


@pytest.mark.parametrize("half", (False, True), ids=("float32_images", "bfloat16_images"))
@pytest.mark.parametrize("conv", convs.every_op((2, 6, 6, 8, 7)), ids=convs.name_of)
def test_autocast_is_that_of_pytorch(conv: convs.Conv, half: bool) -> None:
    """Float32 filters; images as the layer before left them."""
    tensors = conv.tensors()
    tensors.pop("residual", None)
    if half:
        tensors["x"] = tensors["x"].bfloat16()
    leaves = {name: t.requires_grad_() for name, t in tensors.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(leaves)
        expected = _eager(conv, leaves)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    y.float().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.dtype == leaf.dtype, name


def _eager(conv: convs.Conv, tensors: dict[str, Tensor]) -> Tensor:
    x, weight, bias = (tensors[name] for name in ("x", "weight", "bias"))
    if conv.groups is not None:
        norm = tensors["norm_weight"], tensors["norm_bias"]
        x = F.silu(F.group_norm(x, conv.groups, *norm, 1e-6))
    if conv.op == "conv_transpose4x4":
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    if conv.op == "upsample_conv3x3":
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    if conv.padding == "asymmetric":
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
    return F.conv2d(x, weight, bias, stride=2 if "downsample" in conv.op else 1, padding=1)
