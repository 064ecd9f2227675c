"""Gradients: gradcheck in float64, repeated and double backward, torch's own op checks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import vaekernels as vk
from vaekernels.backends import extension, registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.bench.op_inputs import LATENT, options

BACKENDS = ("reference", "cpu")
needs_extension = pytest.mark.skipif(
    bool(extension.refusals()), reason="built without the C++ extension"
)


def _function(op: str, backend: str) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    if registry.refusals(backend, op, "cpu", torch.float64):
        pytest.skip(f"{backend} does not run here")
    cases = LATENT[op]
    return lambda *inputs: cases.ours(*inputs, backend=backend, **options(cases))


def _leaves(op: str, shape: tuple[int, ...] = (3, 5)) -> list[Tensor]:
    inputs = LATENT[op].inputs(shape, torch.float64, torch.Generator().manual_seed(0))
    return [t.clone().requires_grad_() for t in inputs]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", LATENT)
def test_gradcheck_of_every_input(op: str, backend: str) -> None:
    assert torch.autograd.gradcheck(_function(op, backend), _leaves(op))


@pytest.mark.parametrize("op", LATENT)
def test_double_backward_of_the_reference(op: str) -> None:
    assert torch.autograd.gradgradcheck(_function(op, "reference"), _leaves(op, (2, 3)))


@needs_extension
@pytest.mark.parametrize("op", LATENT)
def test_double_backward_of_the_fused_op_says_that_it_is_not_there(op: str) -> None:
    leaves = _leaves(op)
    outputs = _function(op, "cpu")(*leaves)
    first = outputs if isinstance(outputs, Tensor) else outputs[1]
    (grad, *_) = torch.autograd.grad(first.sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{op}: double backward.*reference"):
        grad.sum().backward()


@needs_extension
@pytest.mark.parametrize("op", LATENT)
def test_forward_mode_of_the_fused_op_says_that_it_is_not_there(op: str) -> None:
    inputs = [leaf.detach() for leaf in _leaves(op)]
    with forward_ad.dual_level():
        first, *others = inputs
        dual = forward_ad.make_dual(first, torch.ones_like(first))
        with pytest.raises(NotImplementedError, match=f"{op}: forward-mode.*reference"):
            _function(op, "cpu")(dual, *others)
        outputs = _function(op, "reference")(dual, *others)
        result = outputs if isinstance(outputs, Tensor) else outputs[1]
        assert forward_ad.unpack_dual(result).tangent is not None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", LATENT)
def test_a_second_backward_through_the_same_graph(op: str, backend: str) -> None:
    leaves = _leaves(op)
    outputs = _function(op, backend)(*leaves)
    total = sum(o.sum() for o in ((outputs,) if isinstance(outputs, Tensor) else outputs))
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    second = torch.autograd.grad(total, leaves)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@needs_extension
@pytest.mark.parametrize("used", (0, 1))
def test_rsample_kl_when_only_one_output_is_used(used: int) -> None:
    leaves = _leaves("rsample_kl")
    got = torch.autograd.grad(_function("rsample_kl", "cpu")(*leaves)[used].sum(), leaves)
    exact = torch.autograd.grad(_function("rsample_kl", "reference")(*leaves)[used].sum(), leaves)
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a, b)


@needs_extension
def test_only_the_gradients_asked_for_are_made() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    target = torch.rand(4, 6)
    arguments = (torch.ones(4), logits.detach(), target, [True, False])
    grads = torch.ops.vaekernels.bernoulli_nll_backward(*arguments)
    assert grads[0].shape == (4, 6)
    assert grads[1].numel() == 0
    vk.bernoulli_nll(logits, target).sum().backward()
    torch.testing.assert_close(logits.grad, torch.sigmoid(logits.detach()) - target)


@needs_extension
def test_changing_an_input_in_place_before_backward_is_an_error() -> None:
    mean = torch.randn(2, 3, requires_grad=True)
    scaled = mean * 1.0
    z, _ = vk.rsample_kl(scaled, torch.zeros(2, 3), seed=0)
    scaled.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def _arguments(op: str, requires_grad: bool) -> tuple[object, ...]:
    inputs = LATENT[op].inputs((3, 5), torch.float32, torch.Generator().manual_seed(0))
    tensors = [t.requires_grad_(requires_grad) for t in inputs]
    rest = (torch.tensor(3), 0, None, -30.0, 20.0) if op == "rsample_kl" else ()
    return (*tensors, *rest)


@needs_extension
@pytest.mark.parametrize("op", LATENT)
def test_opcheck_forward(op: str) -> None:
    extension.load()
    torch.library.opcheck(getattr(torch.ops.vaekernels, op).default, _arguments(op, True))


@needs_extension
@pytest.mark.parametrize("op", LATENT)
def test_opcheck_backward(op: str) -> None:
    extension.load()
    inputs = _arguments(op, False)
    grads = (torch.randn(3, 5), torch.randn(3)) if op == "rsample_kl" else (torch.randn(3),)
    count = len(DEFINITIONS[op].differentiable)
    for mask in ([True] * count, [True] + [False] * (count - 1)):
        operator = getattr(torch.ops.vaekernels, f"{op}_backward").default
        torch.library.opcheck(operator, (*grads, *inputs, mask))


@needs_extension
def test_opcheck_randn() -> None:
    extension.load()
    arguments = (torch.empty(3, 5), torch.tensor(1), 0, torch.arange(3))
    torch.library.opcheck(torch.ops.vaekernels.randn.default, arguments)
