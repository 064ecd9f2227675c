"""The latent ops' Triton kernels against the float64 reference, forward and backward.

The rule: an error of at most twice eager PyTorch's at the same dtype, plus a floor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import vaekernels as vk
from tests.ops import edges
from tests.ops.conformance import assert_as_good_as_eager
from tests.ops.oracle import KINDS, make, plain, plain_rsample_kl, weights
from vaekernels.bench.op_inputs import error

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, on masked-out lanes
]

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SHAPES = [(1, 1), (7, 7), (3, 33), (2, 1, 257), (2, 2048 + 5)]
SEED, STEP, CLAMP = 2**35 + 7, 3, (-2.5, 1.1)


def rsample_kl(mean: Tensor, logvar: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    return vk.rsample_kl(mean, logvar, seed=SEED, step=STEP, logvar_clamp=CLAMP, **options)


def rsample_kl_of_triton_noise(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    # Triton's own noise, which test_triton_noise.py holds against the contract: the interpreter
    # of Triton 3.6 has no fused multiply-add, so that it may differ in the last place.
    eps = vk.randn(mean.shape, seed=SEED, step=STEP, dtype=torch.float32, backend="triton")
    return plain_rsample_kl(mean, logvar, eps, CLAMP)


# Op, and the same in plain PyTorch.
OPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "rsample_kl": (rsample_kl, rsample_kl_of_triton_noise),
    "gaussian_kl": (vk.gaussian_kl, plain(vk.gaussian_kl)),
    "bernoulli_nll": (vk.bernoulli_nll, plain(vk.bernoulli_nll)),
    "gaussian_nll": (vk.gaussian_nll, plain(vk.gaussian_nll)),
    "laplace_nll": (vk.laplace_nll, plain(vk.laplace_nll)),
}


def run(function: Callable[..., Any], inputs: Sequence[Tensor], dtype: torch.dtype | None = None):
    """Outputs, then the gradients of a weighted sum of them."""
    leaves = [t.detach().to(dtype or t.dtype).requires_grad_() for t in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum((out.double() * weights(out)).sum() for out in outputs)
    return [out.detach() for out in outputs], torch.autograd.grad(loss, leaves)


def check(name: str, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Compare the op on ``inputs`` with float64; returns the gradients."""
    op, eager = OPS[name]
    outputs, grads = run(lambda *leaves: op(*leaves, backend="triton"), inputs)
    exact_outputs, exact_grads = run(eager, inputs, torch.float64)
    eager_outputs, eager_grads = run(eager, inputs)
    for got, exact, other in zip(
        (*outputs, *grads),
        (*exact_outputs, *exact_grads),
        (*eager_outputs, *eager_grads),
        strict=True,
    ):
        assert not got.isnan().any()
        # Eager float64 is the exact answer itself: its error, 0, says nothing of the dtype's.
        floor = 8 * torch.finfo(got.dtype).eps if got.dtype == torch.float64 else 0.0
        assert_as_good_as_eager(got, other, exact, inputs[0].shape, floor)
    for tensor, grad in zip(inputs, grads, strict=True):
        assert grad.dtype == tensor.dtype
    sums = outputs[-1]
    wide = any(t.dtype == torch.float64 for t in inputs)
    assert sums.dtype == (torch.float64 if wide else torch.float32)
    return list(grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_odd_shapes(name: str, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        check(name, [make(kind, shape, dtype, i) for i, kind in enumerate(KINDS[name])])


@pytest.mark.parametrize("name", OPS)
def test_strided_halves_are_read_in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaekernels.backends.triton.row_reduction import Operand

    kinds = KINDS[name]
    wide = [make(kind, (3, 4, 5, 7), torch.float32, i) for i, kind in enumerate(kinds)]
    halves = [t.chunk(2, 1)[i % 2] for i, t in enumerate(wide)]
    assert not any(t.is_contiguous() for t in halves)
    for half in halves:
        operand = Operand.rows(half)
        assert operand.argument.data_ptr() == half.data_ptr()
        assert operand.stride == 4 * 5 * 7
    op, _ = OPS[name]
    strided, packed = (
        op(*halves, backend="triton"),
        op(*(t.contiguous() for t in halves), backend="triton"),
    )
    for got, expected in zip(pair(strided), pair(packed), strict=True):
        assert torch.equal(got, expected)


def pair(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("name", OPS)
def test_channels_last_and_transposed(name: str) -> None:
    """Noise and sums follow the logical index; gradients keep the input's layout."""
    kinds = KINDS[name]
    inputs = [make(kind, (2, 6, 3, 5), torch.float32, i) for i, kind in enumerate(kinds)]
    inputs[0] = inputs[0].to(memory_format=torch.channels_last)
    inputs[1] = inputs[1].transpose(2, 3).contiguous().transpose(2, 3)
    grads = check(name, inputs)
    assert grads[0].stride() == inputs[0].stride()


def test_channels_last_sample_is_channels_last() -> None:
    mean = make("mean", (2, 6, 3, 5), torch.float32, 0).to(memory_format=torch.channels_last)
    z, _ = rsample_kl(mean, torch.zeros_like(mean), backend="triton")
    assert z.stride() == mean.stride()
    packed, _ = rsample_kl(mean.contiguous(), mean.contiguous() * 0, backend="triton")
    assert torch.equal(z, packed)


@pytest.mark.parametrize("shape", [(0, 20), (0,), (3, 0)])
@pytest.mark.parametrize("name", OPS)
def test_empty_batch_and_empty_rows(name: str, shape: tuple[int, ...]) -> None:
    op, kinds = OPS[name][0], KINDS[name]
    inputs = [make(kind, shape, torch.float32, i) for i, kind in enumerate(kinds)]
    outputs, grads = run(lambda *leaves: op(*leaves, backend="triton"), inputs)
    assert torch.equal(outputs[-1], torch.zeros(shape[0]))
    assert [grad.shape for grad in grads] == [t.shape for t in inputs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["gaussian_nll", "laplace_nll", "gaussian_kl"])
def test_one_number_and_its_gradient(name: str, dtype: torch.dtype) -> None:
    kinds = KINDS[name]
    free = 2 if name != "gaussian_kl" else 3
    for shape in [(3, 33), (2, 2048 + 5)]:
        inputs = [make(kind, shape, dtype, i) for i, kind in enumerate(kinds)]
        inputs[free] = make(kinds[free], (), dtype, 9)
        grads = check(name, inputs)
        assert grads[free].shape == ()


def test_a_float_prior_is_a_standard_one() -> None:
    mean, logvar = (make(kind, (3, 33), torch.float32, i) for i, kind in enumerate(["mean"] * 2))
    got = vk.gaussian_kl(mean, logvar, backend="triton")
    expected = vk.gaussian_kl(mean.double(), logvar.double(), backend="reference")
    assert error(got, expected) <= 1e-6


@pytest.mark.parametrize("extent", [1, 33])
def test_expanded_inputs(extent: int) -> None:
    """Broadcast inputs: along the batch (row stride 0), along rows, everywhere."""
    mean = make("mean", (3, extent), torch.float32, 0)
    for shape in [(1, extent), (3, 1), (1, 1)]:
        inputs = (mean, make("mean", (3, extent), torch.float32, 1))
        logvar = make("logvar", shape, torch.float32, 2).requires_grad_()
        nll = vk.gaussian_nll(*inputs, logvar, backend="triton")
        expected = vk.gaussian_nll(*inputs, logvar, backend="reference")
        torch.testing.assert_close(nll, expected)
        got = torch.autograd.grad(nll.sum(), logvar)[0]
        torch.testing.assert_close(got, torch.autograd.grad(expected.sum(), logvar)[0])


def test_mixed_dtypes() -> None:
    inputs = [
        make("mean", (3, 33), torch.bfloat16, 0),
        make("mean", (3, 33), torch.float32, 1),
        make("logvar", (3, 33), torch.float16, 2),
    ]
    outputs, grads = run(lambda *leaves: vk.gaussian_nll(*leaves, backend="triton"), inputs)
    exact_outputs, exact_grads = run(plain(vk.gaussian_nll), inputs, torch.float64)
    assert error(outputs[0], exact_outputs[0]) <= 1e-6
    for grad, exact, tensor in zip(grads, exact_grads, inputs, strict=True):
        assert grad.dtype == tensor.dtype
        assert error(grad, exact) <= torch.finfo(tensor.dtype).eps


@pytest.mark.parametrize("used", ["z", "kl"])
@pytest.mark.parametrize("wanted", ["mean", "logvar"])
def test_rsample_kl_gradients_alone(used: str, wanted: str) -> None:
    """One output unused (its gradient is None), one input without a gradient."""
    results = []
    for backend in ("triton", "reference"):
        mean, logvar = (
            make("mean", (3, 33), torch.float32, 0),
            make("logvar", (3, 33), torch.float32, 1),
        )
        leaf = (mean if wanted == "mean" else logvar).requires_grad_()
        z, kl = rsample_kl(mean, logvar, backend=backend)
        results.append(torch.autograd.grad((z * z.detach() if used == "z" else kl).sum(), leaf)[0])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_clamped_logvar_passes_no_gradient() -> None:
    logvar = torch.tensor([[-2.6, -2.5, 0.0, 1.1, 1.2, float("nan")]], requires_grad=True)
    grads = []
    for backend in ("triton", "reference"):
        z, kl = rsample_kl(torch.ones(1, 6), logvar, backend=backend)
        grads.append(torch.autograd.grad(z.sum() + kl.nan_to_num().sum(), logvar)[0])
        assert z[0, 5].isnan()
        assert kl.isnan()
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", OPS)
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    op, kinds = OPS[name][0], KINDS[name]
    for shape in [(5, 33), (3, 2048 + 16)]:
        inputs = [make(kind, shape, torch.float32, i) for i, kind in enumerate(kinds)]
        whole, alone = op(*inputs, backend="triton"), op(*(t[:1] for t in inputs), backend="triton")
        for got, expected in zip(pair(alone), pair(whole), strict=True):
            assert torch.equal(got, expected[:1])


@pytest.mark.parametrize("name", OPS)
def test_nan_stays_in_its_row(name: str) -> None:
    kinds = KINDS[name]
    for position in range(len(kinds)):
        inputs = [make(kind, (4, 33), torch.float32, i) for i, kind in enumerate(kinds)]
        inputs[position][1, 7] = float("nan")
        sums = pair(OPS[name][0](*inputs, backend="triton"))[-1]
        assert sums.isnan().tolist() == [False, True, False, False]


def test_confident_logits_keep_their_tiny_loss() -> None:
    logits = torch.tensor([[60.0], [-40.0]])
    got = vk.bernoulli_nll(logits, torch.tensor([[1.0], [0.0]]), backend="triton")
    torch.testing.assert_close(got, torch.exp(torch.tensor([-60.0, -40.0])), rtol=1e-6, atol=0)


def test_infinitely_wrong_logits_lose_infinity() -> None:
    infinity = float("inf")
    logits, target = torch.tensor([[infinity], [-infinity]]), torch.tensor([[0.0], [1.0]])
    assert vk.bernoulli_nll(logits, target, backend="triton").tolist() == [infinity, infinity]


def test_absolute_value_has_no_slope_at_zero() -> None:
    mean = torch.tensor([[1.0, 2.0]], requires_grad=True)
    nll = vk.laplace_nll(mean, torch.tensor([[1.0, 3.0]]), 0.5, backend="triton")
    assert torch.autograd.grad(nll.sum(), mean)[0].tolist() == [[0.0, -2.0]]


def test_opcheck() -> None:
    importlib.import_module("vaekernels.backends.triton.rsample_kl")  # registers the implementation
    mean, logvar = (make("mean", (2, 9), torch.float32, i).requires_grad_() for i in range(2))
    arguments = (mean, logvar, torch.tensor(5), 0, None, -30.0, 20.0)
    torch.library.opcheck(
        torch.ops.vaekernels_triton.rsample_kl.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("name", OPS)
def test_infinities_and_nan_as_in_pytorch(name: str) -> None:
    if name == "rsample_kl":
        edges.check_rsample_kl("triton", torch.float32)
    else:
        edges.check_row_op(name, "triton", torch.float32)
