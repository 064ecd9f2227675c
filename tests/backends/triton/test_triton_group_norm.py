"""The Triton kernels of group_norm_silu against the float64 reference, forward and backward.

The rule: an error of at most twice eager PyTorch's at the same dtype, plus a floor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops.norms import LAYOUTS, check, draw, laid, run

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
    pytest.mark.usefixtures("poisoned_memory"),
]

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
# Shape and groups: groups of 1, 3, 5 and 7 channels; a group wider than a tile of pixels; tails of
# tiles in both directions; one pixel; ranks.
ODD = {
    "groups_of_1": ((1, 6, 5, 7), 6),
    "groups_of_3": ((2, 9, 5, 3), 3),
    "groups_of_5": ((1, 10, 3, 3), 2),
    "groups_of_7": ((1, 14, 7, 5), 2),
    "one_group": ((2, 3, 3, 5), 1),
    "wide_groups": ((1, 150, 3, 2), 2),
    "many_tiles": ((1, 4, 45, 51), 2),
    "one_pixel": ((1, 32, 1, 1), 4),
    "one_channel": ((2, 1, 9, 9), 1),
    "rank_2": ((3, 8), 2),
    "rank_3": ((1, 8, 37), 2),
    "rank_5": ((1, 8, 3, 4, 5), 2),
}


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of a few hundred elements have several blocks, segments and steps."""
    images, group_norm = (
        importlib.import_module(f"vaekernels.backends.triton.{name}")
        for name in ("images", "group_norm")
    )
    monkeypatch.setattr(images, "TILE", 64)
    monkeypatch.setattr(images, "PROGRAMS", 4)
    for module in (images, group_norm):
        monkeypatch.setattr(module, "CHANNELS", 8)


def operator() -> Callable[..., tuple[Tensor, ...]]:
    importlib.import_module(
        "vaekernels.backends.triton.group_norm_silu"
    )  # registers the implementation
    return torch.ops.vaekernels_triton.group_norm_silu.default


@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize(("shape", "groups"), ODD.values(), ids=ODD)
def test_odd_shapes(shape: tuple[int, ...], groups: int, layout: str) -> None:
    x, weight, bias = draw(shape)
    check((laid(x, layout), weight, bias), groups, "triton")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_dtypes(layout: str, dtype: torch.dtype) -> None:
    x, weight, bias = draw((1, 9, 5, 7), dtype)
    _, *grads = check((laid(x, layout), weight, bias), 3, "triton")
    assert [grad.dtype for grad in grads] == [dtype] * 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_without_activation(layout: str) -> None:
    x, weight, bias = draw((2, 6, 5, 3))
    x = laid(x, layout)
    y, grad, *_ = check((x, weight, bias), 2, "triton", activation=None)
    assert y.stride() == grad.stride() == torch.empty_like(x).stride()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize(("shape", "groups"), (((1, 6, 9, 13), 2), ((1, 20, 3, 7), 1)))
def test_many_small_tiles(shape: tuple[int, ...], groups: int, layout: str) -> None:
    x, weight, bias = draw(shape)
    check((laid(x, layout), weight, bias), groups, "triton")


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
def test_weights_of_float32_as_under_autocast(dtype: torch.dtype) -> None:
    x, weight, bias = draw((1, 9, 5, 3))
    wide = torch.stack((weight, bias), 1)  # and in strides
    y, *grads = check((x.to(dtype), wide[:, 0], wide[:, 1]), 3, "triton")
    assert y.dtype == grads[0].dtype == dtype
    assert grads[1].dtype == grads[2].dtype == torch.float32


# --- statistics


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("dark", (0, 40))
def test_the_variance_of_a_large_mean_does_not_cancel(dark: int, layout: str) -> None:
    from vaekernels.backends.triton.group_norm import statistics

    x = torch.randn(1, 6, 9, 13) + 1e4
    x[0].view(6, -1)[:, :dark] = 0.0  # the pivots of some programs are far from their tiles' means
    mean, rstd = statistics(laid(x, layout), 2, 1e-6)
    groups = x.double().reshape(1, 2, -1)
    torch.testing.assert_close(mean.double(), groups.mean(-1), rtol=1e-7, atol=0)
    exact = (groups.var(-1, correction=0) + 1e-6).rsqrt()
    torch.testing.assert_close(rstd.double(), exact, rtol=3e-7, atol=0)


@pytest.mark.parametrize("mean", (1e4, -3e5))
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_a_large_mean_costs_no_more_than_in_eager(layout: str, mean: float) -> None:
    x, weight, bias = draw((1, 8, 9, 7))
    check((laid(x + mean, layout), weight, bias), 4, "triton")


def test_statistics_and_affine_map_are_those_of_the_op() -> None:
    from vaekernels.backends.triton.group_norm import normalisation, scale_shift, statistics

    x, weight, bias = draw((2, 12, 5, 3), torch.bfloat16)
    together = normalisation(x, weight, bias, 4, 1e-6)
    mean, rstd = statistics(x, 4, 1e-6)
    apart = (mean, rstd, *scale_shift(mean, rstd, weight, bias))
    _, *saved = operator()(x, weight, bias, 4, 1e-6, "silu")
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
    assert all(torch.equal(a, b) for a, b in zip((mean, rstd), saved, strict=True))
    normalised = torch.nn.functional.group_norm(x.float(), 4, weight.float(), bias.float(), 1e-6)
    scale, shift = (t[:, :, None, None] for t in apart[2:])
    torch.testing.assert_close(x * scale + shift, normalised, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_one_element_per_group_has_no_slope(layout: str) -> None:
    x, weight, bias = draw((2, 6, 1, 1))
    y, *grads = run((laid(x, layout), weight, bias), 6, "triton")
    expected = torch.nn.functional.silu(bias).expand(2, 6)
    torch.testing.assert_close(y[:, :, 0, 0], expected, rtol=1e-3, atol=1e-3)  # x - mean, by 1000
    # Two numbers of the size of rstd = 1000 cancel but for their roundings.
    assert grads[0].abs().max() < 4e3 * torch.finfo(torch.float32).eps
    assert torch.equal(grads[1], torch.zeros(6))


@pytest.mark.parametrize("poison", (float("nan"), float("inf"), float("-inf")))
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_nan_and_infinity_stay_in_their_group(layout: str, poison: float) -> None:
    x, weight, bias = draw((2, 8, 5, 5))
    x[1, 2, 3, 3] = poison
    y = vk.group_norm_silu(laid(x, layout), weight, bias, 4, backend="triton")
    assert torch.isnan(y[1, 2:4]).all()
    y[1, 2:4] = 0.0
    assert torch.isfinite(y).all()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_a_sample_does_not_depend_on_the_others(layout: str) -> None:
    x, weight, bias = draw((2, 6, 5, 7))
    results = []
    for part in (x, x[1:]):
        leaf = laid(part, layout).requires_grad_()
        y = vk.group_norm_silu(leaf, weight, bias, 2, backend="triton")
        results.append((y, *torch.autograd.grad(y.square().sum(), leaf)))
    for whole, alone in zip(*results, strict=True):
        assert torch.equal(whole[1:], alone)


@pytest.mark.parametrize("shape", ((0, 8, 4, 4), (2, 8, 0, 4)))
def test_empty(shape: tuple[int, ...]) -> None:
    y, *grads = run((torch.empty(shape), torch.ones(8), torch.zeros(8)), 4, "triton")
    assert y.shape == grads[0].shape == shape
    for grad in grads[1:]:
        assert torch.equal(grad, torch.zeros(8))
    _, mean, rstd = operator()(torch.empty(shape), torch.ones(8), torch.zeros(8), 4, 1e-6, None)
    assert mean.shape == rstd.shape == (shape[0], 4)


# --- autograd


def test_only_the_gradients_asked_for_are_made() -> None:
    tensors = draw((1, 6, 5, 3))
    grad = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    expected = run(tensors, 2, "triton")[1:]
    _, mean, rstd = operator()(*tensors, 2, 1e-6, "silu")
    backward = torch.ops.vaekernels_triton.group_norm_silu_backward.default
    for wanted in ((0,), (1,), (2,), (0, 2), (1, 2)):
        mask = [k in wanted for k in range(3)]
        grads = backward(grad, *tensors, 2, 1e-6, "silu", mean, rstd, mask)
        for k in range(3):
            assert torch.equal(grads[k], expected[k]) if mask[k] else grads[k].numel() == 0


def test_backward_twice_and_double_backward() -> None:
    leaves = [t.requires_grad_() for t in draw((2, 4, 3, 3))]
    total = vk.group_norm_silu(*leaves, 2, backend="triton").square().sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    second = torch.autograd.grad(total, leaves, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match=r"group_norm_silu: double backward.*reference"):
        second[0].sum().backward()


def test_the_statistics_carry_no_gradient() -> None:
    y, mean, rstd = operator()(*(t.requires_grad_() for t in draw((2, 4, 3, 3))), 2, 1e-6, "silu")
    assert [t.requires_grad for t in (y, mean, rstd)] == [True, False, False]


def test_opcheck_and_compile() -> None:
    tensors = [t.requires_grad_() for t in draw((1, 4, 3, 3))]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator(), (*tensors, 2, 1e-6, "silu"), test_utils=checks)
    compiled = torch.compile(vk.group_norm_silu, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, vk.group_norm_silu):
        y = function(*tensors, 2, backend="triton")
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
