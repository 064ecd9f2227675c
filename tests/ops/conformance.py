"""The one conformance check: an op on a backend against the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.cases import OpCases, error, tolerance

SEED = 20

LAYOUTS = ("contiguous", "strided_halves", "channels_last", "transposed")


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same values in other strides."""
    if layout == "contiguous" or tensor.ndim < 2:
        return tensor.contiguous()
    if layout == "strided_halves":
        return torch.cat([tensor, tensor], dim=1)[:, : tensor.shape[1]]
    if layout == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def options(cases: OpCases) -> dict[str, object]:
    return {"seed": SEED} if cases.op == "rsample_kl" else {}


def run(
    cases: OpCases, inputs: Sequence[Tensor], backend: str, grads: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs, the output gradients used, and the gradients of the differentiable inputs."""
    leaves = [t.detach().requires_grad_(i in cases.differentiable) for i, t in enumerate(inputs)]
    outputs = tree_leaves(cases.ours(*leaves, backend=backend, **options(cases)))
    if grads is None:
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    grads = [g.to(o.dtype) for g, o in zip(grads, outputs, strict=True)]
    wanted = [leaves[i] for i in cases.differentiable]
    return outputs, list(grads), list(torch.autograd.grad(outputs, wanted, grads))


def check(
    cases: OpCases, shape: tuple[int, ...], dtype: torch.dtype, layout: str, backend: str
) -> None:
    """Forward and backward within the computed tolerance, in the promised shapes and dtypes."""
    generator = torch.Generator().manual_seed(0)
    inputs = [in_layout(t, layout) for t in cases.inputs(shape, dtype, generator)]
    outputs, grads, got = run(cases, inputs, backend, None)
    exact = [t.double() for t in inputs]
    exact_outputs, _, exact_got = run(cases, exact, "reference", [g.double() for g in grads])
    # Eager PyTorch is the reference in the dtype itself: the same lines, the same noise.
    eager_outputs, _, eager_got = run(cases, inputs, "reference", grads)

    triples = zip(
        [*outputs, *got], [*eager_outputs, *eager_got], [*exact_outputs, *exact_got], strict=True
    )
    for result, eager, reference in triples:
        assert torch.isfinite(result).all()
        assert_as_good_as_eager(result, eager, reference, shape)


def assert_as_good_as_eager(
    result: Tensor, eager: Tensor, exact: Tensor, shape: Sequence[int], floor: float = 0.0
) -> None:
    """``result`` has eager's shape and dtype, and at most twice its error plus a floor.

    Args:
        result: an output or a gradient of the backend under test.
        eager: the same of plain PyTorch in the same dtype.
        exact: the same in float64.
        shape: of the op's inputs: a number per row sums a row, a number sums them all.
        floor: error allowed beyond that.
    """
    assert result.shape == exact.shape
    assert result.dtype == eager.dtype
    terms = math.prod(shape[1:]) if result.ndim <= 1 else 1
    terms *= shape[0] if result.ndim == 0 else 1
    assert error(result, exact) <= (tolerance(error(eager, exact), result.dtype, terms) + floor)
