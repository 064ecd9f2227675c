"""``vk.group_norm_silu`` against the float64 reference, PyTorch's own ops, and itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import vaekernels as vk
from tests.ops.norms import CASES, LAYOUTS, check, draw, laid, run
from vaekernels.backends import extension as _extension
from vaekernels.backends import registry
from vaekernels.backends.definitions import DTYPES

needs_extension = pytest.mark.skipif(
    bool(_extension.refusals()), reason="built without the C++ extension"
)
BACKENDS = ("reference", pytest.param("cpu", marks=needs_extension))

# Shape and groups: tails of vectors, runs, parts and columns; every group size; images of one
# pixel; ranks.
ODD = {
    "groups_of_two": ((2, 64, 7, 33), 32),
    "one_group": ((3, 20, 33, 7), 1),
    "group_per_channel": ((3, 20, 33, 7), 20),
    "odd_groups": ((2, 96, 7, 7), 3),
    "odd_image": ((1, 96, 57, 57), 32),
    "one_pixel": ((2, 32, 1, 1), 4),
    "one_element_per_group": ((2, 6, 1, 1), 6),
    "one_channel": ((2, 1, 9, 9), 1),
    "many_channels": ((2, 1200, 5, 6), 40),
    "segments_of_a_plane": ((1, 4, 300, 301), 2),
    "segments_of_an_image": ((1, 532, 33, 20), 4),
    "fewer_segments_than_even": ((1, 8192, 3, 3), 512),
    "rank_2": ((4, 8), 2),
    "rank_3": ((2, 8, 37), 2),
    "rank_5": ((2, 8, 3, 4, 5), 4),
}


@needs_extension
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("activation", ("silu", None))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "groups"), ODD.values(), ids=ODD)
def test_odd_shapes(
    shape: tuple[int, ...], groups: int, layout: str, activation: str | None
) -> None:
    x, weight, bias = draw(shape)
    check((laid(x, layout), weight, bias), groups, "cpu", activation)


@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("case", ("sd_512c_64px", "train_32c_32px_b64", "odd_96c_57px"))
def test_real_shapes(case: str, layout: str) -> None:
    x, weight, bias = draw(CASES.shapes[case])
    check((laid(x, layout), weight, bias), 32, "cpu")


@pytest.mark.slow
@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("shape", CASES.shapes.values(), ids=CASES.shapes)
def test_all_real_shapes(shape: tuple[int, ...], layout: str) -> None:
    x, weight, bias = draw(shape)
    check((laid(x, layout), weight, bias), 32, "cpu")


@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("mean", (1e4, -3e5))
def test_a_large_mean_costs_no_more_than_in_eager(mean: float, layout: str) -> None:
    x, weight, bias = draw((2, 64, 33, 33))
    check((laid(x + mean, layout), weight, bias), 8, "cpu")


@needs_extension
def test_the_variance_of_a_large_mean_does_not_cancel() -> None:
    x = torch.randn(2, 64, 65, 65) + 1e4
    for layout in ("contiguous", "pixels"):
        _extension.load()
        operator = torch.ops.vaekernels.group_norm_silu
        ones, zeros = torch.ones(64), torch.zeros(64)
        _, mean, rstd = operator(laid(x, layout), ones, zeros, 32, 1e-6, None)
        groups = x.double().reshape(2, 32, -1)
        torch.testing.assert_close(mean.double(), groups.mean(-1), rtol=1e-7, atol=0)
        exact = (groups.var(-1, correction=0) + 1e-6).rsqrt()
        torch.testing.assert_close(rstd.double(), exact, rtol=3e-7, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", (1, 8, 16))
def test_is_torch_group_norm_and_silu(groups: int, backend: str) -> None:
    x, weight, bias = draw((3, 16, 9, 11))
    got = vk.group_norm_silu(x, weight, bias, groups, eps=1e-5, backend=backend)
    expected = F.silu(F.group_norm(x, groups, weight, bias, 1e-5))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)
    got = vk.group_norm_silu(x, weight, bias, groups, activation=None, backend=backend)
    expected = F.group_norm(x, groups, weight, bias, 1e-6)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16, torch.float64), ids=str)
def test_other_dtypes_run_on_the_reference(dtype: torch.dtype) -> None:
    x, weight, bias = (t.to(dtype) for t in draw((2, 8, 5, 5)))
    y = vk.group_norm_silu(x, weight, bias, 4)
    assert y.dtype == dtype
    expected = F.silu(F.group_norm(x.double(), 4, weight.double(), bias.double(), 1e-6))
    torch.testing.assert_close(y, expected.to(dtype), rtol=1e-2, atol=1e-2)
    if dtype != torch.float64:  # as under autocast
        mixed = vk.group_norm_silu(x, weight.float(), bias.float(), 4)
        torch.testing.assert_close(mixed, y)
    assert any("no kernels for" in r for r in registry.refusals("cpu", CASES.op, "cpu", dtype))


@needs_extension
@pytest.mark.parametrize("shape", ((0, 8, 4, 4), (2, 8, 0, 4)))
def test_empty(shape: tuple[int, ...]) -> None:
    y, *grads = run((torch.empty(shape), torch.ones(8), torch.zeros(8)), 4, "cpu")
    assert y.shape == grads[0].shape == shape
    for grad in grads[1:]:
        assert torch.equal(grad, torch.zeros(8))


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_formats_are_kept(layout: str) -> None:
    x, weight, bias = draw((2, 8, 5, 7))
    x = laid(x, layout)
    y, grad, *_ = run((x, weight, bias), 4, "cpu")
    assert y.stride() == grad.stride() == torch.empty_like(x).stride()


@pytest.fixture
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@needs_extension
@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize(
    ("shape", "groups"), (((1, 96, 57, 57), 32), ((3, 8, 180, 130), 1), ((5, 64, 9, 9), 32))
)
def test_same_bits_for_any_number_of_threads(
    shape: tuple[int, ...], groups: int, layout: str
) -> None:
    x, weight, bias = draw(shape)
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        results.append(run((laid(x, layout), weight, bias), groups, "cpu"))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_an_image_does_not_depend_on_the_others(layout: str) -> None:
    x, weight, bias = draw((5, 32, 9, 13))
    whole = vk.group_norm_silu(laid(x, layout), weight, bias, 8)
    for n in range(5):
        alone = vk.group_norm_silu(laid(x[n : n + 1], layout), weight, bias, 8)
        assert torch.equal(whole[n : n + 1], alone)


@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
def test_same_bits_at_every_cpu_capability(layout: str) -> None:
    extension = _extension.load()
    best = extension.cpu_capability()
    x, weight, bias = draw((2, 20, 19, 33))
    results = {}
    try:
        for capability in extension.cpu_capabilities():
            extension.set_cpu_capability(capability)
            results[capability] = run((laid(x, layout), weight, bias), 5, "cpu")
    finally:
        extension.set_cpu_capability(best)
    for capability, tensors in results.items():
        for a, b in zip(results["baseline"], tensors, strict=True):
            assert torch.equal(a, b), capability


@needs_extension
@pytest.mark.parametrize("poison", (float("nan"), float("inf"), float("-inf")))
def test_nan_and_infinity_stay_in_their_group(poison: float) -> None:
    x, weight, bias = draw((2, 8, 5, 5))
    x[1, 2, 3, 3] = poison
    for layout in ("contiguous", "pixels"):
        y = vk.group_norm_silu(laid(x, layout), weight, bias, 4)
        assert torch.isnan(y[1, 2:4]).all()
        y[1, 2:4] = 0.0
        assert torch.isfinite(y).all()


# --- autograd


def _leaves(shape: tuple[int, ...] = (2, 4, 3, 3)) -> list[Tensor]:
    return [t.double().requires_grad_() for t in draw(shape)]


@pytest.mark.parametrize("activation", ("silu", None))
def test_gradcheck_and_double_backward_of_the_reference(activation: str | None) -> None:
    def function(*inputs: Tensor) -> Tensor:
        return vk.group_norm_silu(*inputs, 2, eps=1e-3, activation=activation)

    assert torch.autograd.gradcheck(function, _leaves())
    assert torch.autograd.gradgradcheck(function, _leaves((1, 2, 2, 2)))


@needs_extension
def test_double_backward_of_the_fused_op_says_that_it_is_not_there() -> None:
    leaves = [t.requires_grad_() for t in draw((2, 4, 3, 3))]
    y = vk.group_norm_silu(*leaves, 2)
    (grad, *_) = torch.autograd.grad(y.sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=r"group_norm_silu: double backward.*reference"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_backward_through_the_same_graph(backend: str) -> None:
    leaves = [t.requires_grad_() for t in draw((2, 4, 3, 3))]
    total = vk.group_norm_silu(*leaves, 2, backend=backend).square().sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    second = torch.autograd.grad(total, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_extension
@pytest.mark.parametrize("layout", ("contiguous", "pixels"))
@pytest.mark.parametrize("wanted", ((0,), (1,), (2,), (0, 2), (1, 2)))
def test_only_the_gradients_asked_for_are_made(wanted: tuple[int, ...], layout: str) -> None:
    x, weight, bias = draw((2, 600, 5, 5))
    inputs = [laid(x, layout), weight, bias]
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    expected = run(inputs, 4, "cpu")[1:]
    _extension.load()
    _, mean, rstd = torch.ops.vaekernels.group_norm_silu(*inputs, 4, 1e-6, "silu")
    mask = [k in wanted for k in range(3)]
    grads = torch.ops.vaekernels.group_norm_silu_backward(
        grad, *inputs, 4, 1e-6, "silu", mean, rstd, mask
    )
    for k in range(3):
        assert torch.equal(grads[k], expected[k]) if mask[k] else grads[k].numel() == 0


@needs_extension
def test_the_statistics_carry_no_gradient() -> None:
    _extension.load()
    leaves = [t.requires_grad_() for t in draw((2, 4, 3, 3))]
    y, mean, rstd = torch.ops.vaekernels.group_norm_silu(*leaves, 2, 1e-6, "silu")
    assert y.requires_grad
    assert not mean.requires_grad
    assert not rstd.requires_grad


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_tracing_sees_of_the_statistics(dtype: torch.dtype) -> None:
    x, weight, bias = (t.to("meta", dtype) for t in draw((3, 8, 5, 5)))
    y, mean, rstd = torch.ops.vaekernels.group_norm_silu(x, weight, bias, 2, 1e-6, "silu")
    assert (y.shape, y.dtype) == (x.shape, dtype)
    for statistics in (mean, rstd):
        assert statistics.shape == (3, 2)
        assert statistics.dtype == torch.promote_types(dtype, torch.float32)


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str) -> None:
    _extension.load()
    x, weight, bias = draw((2, 4, 3, 5))
    inputs = (laid(x, layout), weight, bias)
    operator = torch.ops.vaekernels.group_norm_silu.default
    leaves = tuple(t.detach().requires_grad_() for t in inputs)
    torch.library.opcheck(operator, (*leaves, 2, 1e-6, "silu"))
    _, mean, rstd = operator(*inputs, 2, 1e-6, "silu")
    backward = torch.ops.vaekernels.group_norm_silu_backward.default
    for mask in ([True, True, True], [False, True, False]):
        arguments = (torch.randn(x.shape), *inputs, 2, 1e-6, "silu", mean, rstd, mask)
        torch.library.opcheck(backward, arguments)


# --- torch.compile


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_whole_with_the_same_numbers(backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(vk.group_norm_silu, fullgraph=True, backend="aot_eager")
    leaves = [t.requires_grad_() for t in draw((2, 8, 5, 5))]
    results = []
    for function in (compiled, vk.group_norm_silu):
        y = function(*leaves, 4, backend=backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_recompile_on_a_second_shape_of_the_same_rank(backend: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(vk.group_norm_silu, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((2, 8, 5, 6), (3, 12, 9, 7), (5, 16, 4, 33)):
        compiled(*draw(shape), 4, backend=backend)
    assert counter.frame_count == 1


# --- errors

X, C = torch.zeros(2, 6, 3, 3), torch.zeros(6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: vk.group_norm_silu([1.0], C, C, 2), TypeError, "x must be a tensor; got list"),
        (lambda: vk.group_norm_silu(X.int(), C, C, 2), TypeError, "x must be float64.*int32"),
        (lambda: vk.group_norm_silu(C, C, C, 2), ValueError, r"x must have channels.*\(6,\)"),
        (lambda: vk.group_norm_silu(X[:, :0], C, C, 2), ValueError, "x must have channels"),
        (
            lambda: vk.group_norm_silu(X, C, C, 4),
            ValueError,
            "groups must divide the 6 channels of x; got 4",
        ),
        (lambda: vk.group_norm_silu(X, C, C, 0), ValueError, "groups must divide.*got 0"),
        (
            lambda: vk.group_norm_silu(X, C, C, 2.0),
            TypeError,
            "groups must be an integer; got float",
        ),
        (
            lambda: vk.group_norm_silu(X, C[:5], C, 2),
            ValueError,
            r"weight must have shape \(6,\), one number per channel; got \(5,\)",
        ),
        (lambda: vk.group_norm_silu(X, None, C, 2), TypeError, "weight must be a tensor"),
        (lambda: vk.group_norm_silu(X, C, X, 2), ValueError, r"bias must have shape \(6,\)"),
        (
            lambda: vk.group_norm_silu(X, C, C.double(), 2),
            TypeError,
            "bias must have the dtype of x, torch.float32.*got torch.float64",
        ),
        (
            lambda: vk.group_norm_silu(X, C, C.to("meta"), 2),
            ValueError,
            "bias must be on the device of x, cpu; got meta",
        ),
        (lambda: vk.group_norm_silu(X, C, C, 2, eps=-1.0), ValueError, "eps must not be negative"),
        (
            lambda: vk.group_norm_silu(X, C, C, 2, activation="relu"),
            ValueError,
            "activation must be 'silu' or None; got 'relu'",
        ),
        (
            lambda: vk.group_norm_silu(X, C, C, 2, backend="cuda"),
            vk.BackendError,
            "group_norm_silu has no cuda kernels",
        ),
    ],
)
def test_message(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_eps_of_zero_is_pytorchs_in_every_op(backend: str) -> None:
    """Infinite where a group has no variance."""
    varied, (weight, bias) = torch.randn(2, 8, 5, 5), torch.randn(2, 8)
    filters = torch.randn(4, 8, 3, 3)
    for x in (varied, torch.ones_like(varied)):
        plain = F.silu(F.group_norm(x, 2, weight, bias, 0.0))
        y = vk.group_norm_silu(x, weight, bias, 2, eps=0, backend=backend)
        torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-5, equal_nan=True)
        norm = vk.NormPrologue(weight, bias, 2, 0)
        y = vk.conv3x3(x, filters, norm=norm, backend=backend)
        plain = F.conv2d(plain, filters, padding=1)
        torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4, equal_nan=True)
