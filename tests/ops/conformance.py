"""The one conformance check: an op on a backend against the float64 reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaekernels.bench.op_inputs import OpCases, error, run, summed_terms, tolerance

LAYOUTS = ("contiguous", "strided_halves", "strided_ends", "channels_last", "transposed")


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same values in other strides."""
    if layout == "contiguous" or tensor.ndim < 2:
        return tensor.contiguous()
    if layout == "strided_halves":
        return torch.cat([tensor, tensor], dim=1)[:, : tensor.shape[1]]
    if layout == "strided_ends" and tensor.ndim >= 3:
        # Every second element of the last two dims, which do not merge with the ones before.
        height, width = tensor.shape[-2:]
        wide = tensor.new_full((*tensor.shape[:-2], 2 * height + 1, 2 * width + 1), torch.nan)
        view = wide[..., : 2 * height : 2, : 2 * width : 2]
        return view.copy_(tensor)
    if layout == "channels_last" and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


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
        shape: of the op's inputs: see summed_terms.
        floor: error allowed beyond that.
    """
    assert result.shape == exact.shape
    assert result.dtype == eager.dtype
    terms = summed_terms(result, shape)
    assert error(result, exact) <= tolerance(error(eager, exact), result.dtype, terms) + floor
