"""What the tests of group normalisation share on every backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import vaekernels as vk
from tests.ops.conformance import assert_as_good_as_eager, in_layout
from vaekernels.bench.op_inputs import NORM

CASES = NORM["group_norm_silu"]
LAYOUTS = ("contiguous", "pixels", "strided_halves", "transposed")


def laid(x: Tensor, layout: str) -> Tensor:
    """The same values in other strides."""
    if layout == "pixels":  # channels_last, in any number of dims
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return in_layout(x, layout)


def draw(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """x, weight and bias."""
    return CASES.inputs(tuple(shape), dtype, torch.Generator().manual_seed(0))


def run(
    tensors: Sequence[Tensor],
    groups: int,
    backend: str,
    dtype: torch.dtype | None = None,
    activation: str | None = "silu",
    device: str = "cpu",
) -> list[Tensor]:
    """The result, and the gradients of x, weight and bias, on the CPU."""
    leaves = [t.detach().to(device, dtype or t.dtype).requires_grad_() for t in tensors]
    y = vk.group_norm_silu(*leaves, groups, activation=activation, backend=backend)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    # As precise in all runs as in the least precise.
    grads = torch.autograd.grad(y, leaves, grad.to(tensors[0].dtype).to(y))
    return [t.detach().cpu() for t in (y, *grads)]


def check(
    tensors: Sequence[Tensor],
    groups: int,
    backend: str,
    activation: str | None = "silu",
    device: str = "cpu",
) -> list[Tensor]:
    """Compare with float64 and with eager PyTorch; returns the result and the gradients."""
    got = run(tensors, groups, backend, None, activation, device)
    eager = run(tensors, groups, "reference", None, activation)
    exact = run(tensors, groups, "reference", torch.float64, activation)
    for result, plain, reference in zip(got, eager, exact, strict=True):
        # In float64 the reference is the exact answer itself: its error says nothing.
        floor = 16 * torch.finfo(result.dtype).eps if result.dtype == torch.float64 else 0.0
        assert_as_good_as_eager(result, plain, reference, tensors[0].shape, floor)
    return got
