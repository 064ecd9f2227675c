"""Random calls of the ops against plain PyTorch in float64, on every CPU capability."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import vaekernels as vk
from tests.fuzz import draw, witness
from vaekernels.backends import extension as _extension

_NEW = int(os.environ.get("VAEKERNELS_FUZZ", "0"))
_HIGH = 2e-5  # what precision="high" promises of a result and of each gradient
_LATENT = {torch.float32: 1e-5, torch.float64: 1e-7, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def _calls(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=_NEW or count,
        derandomize=not _NEW,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )


def _capabilities() -> list[str]:
    return list(_extension.load().cpu_capabilities()) if not _extension.refusals() else ["none"]


@pytest.fixture(params=_capabilities(), scope="module", autouse=True)
def _capability(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "none":
        pytest.skip("without the C++ extension")
    extension = _extension.load()
    best, threads = extension.cpu_capability(), torch.get_num_threads()
    extension.set_cpu_capability(request.param)
    yield
    extension.set_cpu_capability(best)
    torch.set_num_threads(threads)


def _agrees(ours: Tensor, right: Tensor, bound: float, finite: bool) -> None:
    """``ours`` is close where ``right`` is finite, and not finite where that is not.

    A Winograd tile may spread what is not finite to its neighbours, so places beside those are
    not compared; where all inputs are finite there are none. NaN and infinity are not told apart:
    algorithms that add filters before samples have one where a sum of infinities is the other.
    """
    assert ours.shape == right.shape
    ours, right = ours.detach().double(), right.detach()
    assert not (~right.isfinite() & ours.isfinite()).any(), "a NaN or an infinity is lost"
    if finite:
        assert ours.isfinite().all(), "a NaN or an infinity from finite inputs"
    both = ours.isfinite() & right.isfinite()
    if both.any():
        largest = max(right[both].abs().max().item(), 1e-3)
        error = (ours - right)[both].abs().max().item() / largest
        assert error <= bound, f"error {error:.2e} of the largest value"


def _plain_conv(call: draw.Conv, t: dict[str, Tensor]) -> Tensor:
    """The result before the activation."""
    x = t["x"]
    if call.groups is not None:
        x = F.silu(F.group_norm(x, call.groups, t["norm_weight"], t["norm_bias"], 1e-6))
    y = witness.CONVOLUTIONS[call.op](x, t["weight"], t.get("bias"))
    return y if "residual" not in t else y + t["residual"]


def _our_conv(call: draw.Conv, t: dict[str, Tensor]) -> Tensor:
    options: dict[str, Any] = dict(call.padding)
    if call.groups is not None:
        options["norm"] = vk.NormPrologue(t["norm_weight"], t["norm_bias"], call.groups)
    if "residual" in t:
        options["residual"] = t["residual"]
    return getattr(vk, call.name)(
        *(t["x"], t["weight"], t.get("bias")),
        activation=call.activation,
        negative_slope=call.slope,
        precision=call.precision,
        **options,
    )


def _double(t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().double() for name, value in t.items()}


@_calls(120)
@given(call=draw.convs(finite=True) | draw.convs(finite=False), writes=draw.writes)
def test_convolutions(call: draw.Conv, writes: list[Any]) -> None:
    """Results, also after the weight was written."""
    torch.set_num_threads(call.threads)
    tensors = call.tensors()
    for turn, write in enumerate([None, *writes]):
        if write is not None:
            draw.add_one(tensors["weight"], write, call.seed + turn)
        with torch.no_grad():
            ours = _our_conv(call, tensors)
        right = witness.ACTIVATIONS[call.activation](
            _plain_conv(call, _double(tensors)), call.slope
        )
        _agrees(ours, right, _HIGH, finite=call.finite)


@_calls(60)
@given(call=draw.convs(finite=True))
def test_gradients_of_convolutions(call: draw.Conv) -> None:
    """Every input's; twice through one graph."""
    torch.set_num_threads(call.threads)
    tensors = {name: t.requires_grad_() for name, t in call.tensors().items()}
    exact = {name: t.requires_grad_() for name, t in _double(tensors).items()}
    before = _plain_conv(call, exact)
    right = witness.ACTIVATIONS[call.activation](before, call.slope)
    grad = torch.randn(right.shape, generator=torch.Generator().manual_seed(call.seed))
    # Where rounding decides on which side of zero a value is, its gradient is either.
    grad[before.detach().abs() < 1e-3] = 0.0
    grad = draw.LAYOUTS[call.layouts[3]](grad)
    y = _our_conv(call, tensors)
    expected = torch.autograd.grad(right, list(exact.values()), grad.double())
    for keep in (True, False):
        got = torch.autograd.grad(y, list(tensors.values()), grad, retain_graph=keep)
        for ours, theirs in zip(got, expected, strict=True):
            _agrees(ours, theirs, _HIGH, finite=True)


@_calls(60)
@given(call=draw.norms())
def test_group_norm_silu(call: draw.Norm) -> None:
    """Result and gradients, with at most four times the error of PyTorch's float32.

    And that of a mean which is rounded once: where it is large beside the deviation from it, both
    have that.
    """
    torch.set_num_threads(call.threads)
    activation = witness.ACTIVATIONS[call.activation]

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return activation(F.group_norm(x, call.groups, weight, bias, 1e-6), 0.0)

    def run(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in tensors]
        y = function(*leaves)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(call.seed))
        return [y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))]

    def ours(*tensors: Tensor) -> Tensor:
        return vk.group_norm_silu(*tensors, call.groups, activation=call.activation)

    tensors = call.tensors()
    floor = max(2e-5, 2.0**-24 * call.offset / call.scale)
    exact = run(plain, *(t.double() for t in tensors))
    for got, right, eager in zip(run(ours, *tensors), exact, run(plain, *tensors), strict=True):
        largest = right.nan_to_num().abs().max().clamp(min=1e-3)
        off = float(((eager.double() - right).nan_to_num().abs().max() / largest).detach())
        _agrees(got, right, max(floor, 4.0 * off), finite=not call.spoiled)


@_calls(120)
@given(call=draw.latents(), both=st.booleans())
def test_latent_ops(call: draw.Latent, both: bool) -> None:
    """Results and gradients; of rsample_kl with the sample used, or its KL alone."""
    torch.set_num_threads(call.threads)
    tensors = [t.requires_grad_() for t in call.tensors()]
    exact = [t.detach().double().requires_grad_() for t in tensors]
    bound, finite = _LATENT[call.dtype], call.spoiled is None
    if call.op == "rsample_kl":
        z, ours = vk.rsample_kl(*tensors, seed=call.seed)
        noise = vk.randn(call.shape, seed=call.seed, device="cpu", dtype=torch.float32)
        exact_z = exact[0] + (0.5 * exact[1]).exp() * noise.double()
        right = witness.gaussian_kl(*exact)
        _agrees(z, exact_z, bound, finite)
        if both:
            ours = ours + witness.per_sample(z)
            right = right + witness.per_sample(exact_z)
    else:
        ours = getattr(vk, call.op)(*tensors)
        right = getattr(witness, call.op)(*exact)
    _agrees(ours, right, bound, finite)
    got = torch.autograd.grad(ours.sum(), tensors)
    for mine, theirs in zip(got, torch.autograd.grad(right.sum(), exact), strict=True):
        _agrees(mine, theirs, max(bound, 1e-4), finite)
