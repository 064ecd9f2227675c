"""torch.compile(fullgraph=True): same numbers, no recompiles, fresh noise at each call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import vaekernels as vk
from vaekernels.backends import registry


@pytest.fixture(params=("reference", "cpu"))
def backend(request: pytest.FixtureRequest) -> str:
    if registry.refusals(request.param, "rsample_kl", "cpu", torch.float32):
        pytest.skip(f"{request.param} does not run here")
    torch._dynamo.reset()
    return request.param


def _loss(mean: Tensor, logvar: Tensor, target: Tensor, seed: int | None, backend: str) -> Tensor:
    z, kl = vk.rsample_kl(mean, logvar, seed=seed, backend=backend)
    nll = vk.bernoulli_nll(z, target, backend=backend)
    nll = nll + vk.gaussian_nll(z, target, 0.3, backend=backend)
    nll = nll + vk.laplace_nll(z, target, 0.5, backend=backend)
    return (nll + kl + vk.gaussian_kl(mean, logvar, backend=backend)).mean()


@pytest.mark.parametrize(
    "compiler", ("aot_eager", pytest.param("inductor", marks=pytest.mark.slow))
)
def test_a_training_loss_compiles_whole(backend: str, compiler: str) -> None:
    compiled = torch.compile(_loss, fullgraph=True, backend=compiler)
    mean, logvar = (torch.randn(6, 10, requires_grad=True) for _ in range(2))
    target = torch.rand(6, 10)
    loss = compiled(mean, logvar, target, 7, backend)
    got = torch.autograd.grad(loss, (mean, logvar))
    expected_loss = _loss(mean, logvar, target, 7, backend)
    expected = torch.autograd.grad(expected_loss, (mean, logvar))
    torch.testing.assert_close(loss, expected_loss)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_compiled_function_draws_new_noise_at_each_call(backend: str) -> None:
    compiled = torch.compile(_loss, fullgraph=True, backend="aot_eager")
    arguments = (torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4), None, backend)
    assert float(compiled(*arguments)) != float(compiled(*arguments))


def test_no_recompile_on_a_second_shape_of_the_same_rank(backend: str) -> None:
    counter = CompileCounter()
    compiled = torch.compile(_loss, fullgraph=True, dynamic=True, backend=counter)
    for batch, width in ((4, 10), (6, 12), (9, 33)):
        compiled(*(torch.rand(batch, width) for _ in range(3)), 7, backend)
    assert counter.frame_count == 1


def test_the_backend_in_force_at_tracing_is_kept() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(vk.gaussian_kl, fullgraph=True, backend=counter)
    with vk.use_backend("reference"):
        compiled(torch.zeros(2, 3), torch.zeros(2, 3))
    compiled(torch.zeros(2, 3), torch.zeros(2, 3))
    assert counter.frame_count == 1
