"""Noise and gradients under torch.vmap, torch.func, make_fx and torch.jit.trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import vaekernels as vk
from tests.ops import convs
from vaekernels.backends import extension, registry
from vaekernels.bench.op_inputs import LATENT, options
from vaekernels.models import VAE, VAEConfig

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
X = torch.zeros(3, 4)


@pytest.fixture(params=("reference", "cpu"))
def backend(request: pytest.FixtureRequest) -> str:
    if registry.refusals(request.param, "rsample_kl", "cpu", torch.float32):
        pytest.skip(f"{request.param} does not run here")
    return request.param


def test_vmap_draws_as_it_is_told(backend: str) -> None:
    def sample(row: Tensor) -> Tensor:
        return vk.rsample_kl(row[None], row[None], backend=backend)[0][0]

    different = torch.vmap(sample, randomness="different")
    z = different(X)
    assert not torch.equal(z[0], z[1])
    assert not torch.equal(different(X), z)
    z = torch.vmap(sample, randomness="same")(X)
    assert torch.equal(z[0], z[1])
    with pytest.raises(RuntimeError, match="rsample_kl: no seed can be drawn; pass seed="):
        torch.vmap(sample)(X)


def test_a_seed_for_each_row(backend: str) -> None:
    seeds = torch.arange(3)
    z = torch.vmap(lambda s: vk.randn((2, 5), seed=s, backend=backend))(seeds)
    rows = [vk.randn((2, 5), seed=int(s), backend=backend) for s in seeds]
    assert torch.equal(z, torch.stack(rows))


def test_what_is_traced_draws_anew(backend: str) -> None:
    def sample(x: Tensor) -> Tensor:
        return vk.rsample_kl(x, x, backend=backend)[0]

    for traced in (torch.jit.trace(sample, (X,), check_trace=False), make_fx(sample)(X)):
        first, second = traced(X), traced(X)
        assert not torch.equal(first, second)
    pair = make_fx(lambda x: (sample(x), sample(x)))(X)  # no common subexpression
    pair.graph.eliminate_dead_code()
    pair.recompile()
    assert not torch.equal(*pair(X))


def test_a_traced_model_draws_anew() -> None:
    model = VAE(VAEConfig((1, 4, 4), 2, backbone="mlp", hidden=(4,))).requires_grad_(False)
    x = torch.rand(2, 1, 4, 4)
    traced = torch.jit.trace(
        lambda x: model.encode(x).latent_dist.rsample(), (x,), check_trace=False
    )
    assert not torch.equal(traced(x), traced(x))


@pytest.mark.skipif(bool(extension.refusals()), reason="built without the C++ extension")
def test_drawing_is_tagged() -> None:
    extension.load()
    assert torch.Tag.nondeterministic_seeded in torch.ops.vaekernels.draw_seed.default.tags


def _rows(function: object, inputs: list[Tensor]) -> Tensor:
    """The gradients of a function of one row, row by row."""
    found = []
    for i in range(3):
        row = inputs[0][i].clone().requires_grad_()
        y = function(row, *(t[i] if t.ndim else t for t in inputs[1:]))  # type: ignore[operator]
        found.append(torch.autograd.grad(y, row)[0])
    return torch.stack(found)


@pytest.mark.parametrize("op", LATENT)
def test_gradients_of_each_row(op: str, backend: str) -> None:
    cases = LATENT[op]
    inputs = list(cases.inputs((3, 7), torch.float32, torch.Generator().manual_seed(0)))

    def loss(*row: Tensor) -> Tensor:
        whole = [t[None] if t.ndim else t for t in row]
        y = cases.ours(*whole, backend=backend, **options(cases))
        return (y if isinstance(y, Tensor) else y[0]).sum()

    dims = tuple(0 if t.ndim else None for t in inputs)
    mapped = torch.vmap(torch.func.grad(loss), in_dims=dims)(*inputs)
    torch.testing.assert_close(mapped, _rows(loss, inputs))


@pytest.mark.parametrize("conv", convs.every_op((3, 5, 7, 6, 8)), ids=convs.name_of)
def test_gradients_of_each_image(conv: convs.Conv, backend: str) -> None:
    tensors = conv.tensors()

    def loss(image: Tensor) -> Tensor:
        one = {name: t[:1] if name == "residual" else t for name, t in tensors.items()}
        return conv({**one, "x": image[None]}, backend=backend).square().sum()

    mapped = torch.vmap(torch.func.grad(loss))(tensors["x"])
    torch.testing.assert_close(mapped, _rows(loss, [tensors["x"]]), rtol=1e-4, atol=1e-4)


def test_torch_checks_what_it_traced() -> None:
    """With gradients and without, as ``torch.jit.trace`` does by default, it is one graph."""
    convs.skip_if_refused("cpu")
    layer = vk.nn.DownsampleConv4x4(8, 8)
    x = torch.randn(1, 8, 8, 8)
    torch.testing.assert_close(torch.jit.trace(layer, (x,))(x), layer(x))
