"""Every op x backend x case x dtype x layout against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from tests.ops import conformance
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import LATENT, LATENT_SHAPES, ODD_SHAPES, run

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CPU_BACKENDS = ("reference", "cpu")


def _skip_if_refused(backend: str, op: str, dtype: torch.dtype) -> None:
    reasons = registry.refusals(backend, op, "cpu", dtype)
    if reasons:
        pytest.skip(f"{backend}: {'; '.join(reasons)}")


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", ODD_SHAPES.values(), ids=ODD_SHAPES)
@pytest.mark.parametrize("op", LATENT)
def test_odd_shapes(op: str, shape: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    _skip_if_refused(backend, op, dtype)
    conformance.check(LATENT[op], shape, dtype, "contiguous", backend)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("layout", conformance.LAYOUTS)
@pytest.mark.parametrize("op", LATENT)
def test_layouts(op: str, layout: str, dtype: torch.dtype) -> None:
    _skip_if_refused("cpu", op, dtype)
    for shape in ((3, 4, 9, 5), (5, 6, 300), (6, 14)):
        conformance.check(LATENT[op], shape, dtype, layout, "cpu")


@pytest.mark.parametrize("shape", list(LATENT_SHAPES.values())[:2], ids=list(LATENT_SHAPES)[:2])
@pytest.mark.parametrize("op", LATENT)
def test_real_shapes(op: str, shape: tuple[int, ...]) -> None:
    _skip_if_refused("cpu", op, torch.float32)
    conformance.check(LATENT[op], shape, torch.float32, "contiguous", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("op", LATENT)
def test_largest_real_shapes(op: str) -> None:
    _skip_if_refused("cpu", op, torch.float32)
    for shape in (*LATENT[op].shapes.values(), *LATENT_SHAPES.values()):
        conformance.check(LATENT[op], shape, torch.float32, "contiguous", "cpu")


@pytest.mark.parametrize("op", LATENT)
def test_mixed_dtypes(op: str) -> None:
    """As under autocast: half-precision network outputs, float32 targets."""
    _skip_if_refused("cpu", op, torch.float32)
    cases = LATENT[op]
    inputs = cases.inputs((4, 100), torch.float32, torch.Generator().manual_seed(0))
    mixed = [inputs[0].bfloat16(), *inputs[1:]]
    widened = [inputs[0].bfloat16().float(), *inputs[1:]]
    got = run(cases, mixed, "cpu", None)
    expected = run(cases, widened, "cpu", [g.float() for g in got[1]])
    for a, b in zip([*got[0], *got[2]], [*expected[0], *expected[2]], strict=True):
        torch.testing.assert_close(a.float(), b.to(a.dtype).float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("op", LATENT)
def test_same_result_for_any_number_of_threads(op: str) -> None:
    _skip_if_refused("cpu", op, torch.float32)
    cases = LATENT[op]
    inputs = cases.inputs((3, 40_000), torch.float32, torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        outputs, _, grads = run(cases, inputs, "cpu", None)
        results.append([*outputs, *grads])
    torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("op", LATENT)
def test_same_bits_at_every_cpu_capability(op: str) -> None:
    _skip_if_refused("cpu", op, torch.float32)
    from vaekernels.backends import extension as _extension

    extension = _extension.load()
    if len(extension.cpu_capabilities()) < 2:
        pytest.skip("this processor has one capability only")
    cases = LATENT[op]
    best = extension.cpu_capability()
    inputs = cases.inputs((3, 1000), torch.float32, torch.Generator().manual_seed(0))
    results = {}
    try:
        for capability in extension.cpu_capabilities():
            extension.set_cpu_capability(capability)
            assert extension.cpu_capability() == capability
            outputs, _, grads = run(cases, inputs, "cpu", None)
            results[capability] = [*outputs, *grads]
    finally:
        extension.set_cpu_capability(best)
    for capability, tensors in results.items():
        for a, b in zip(results["baseline"], tensors, strict=True):
            assert torch.equal(a, b), capability


@pytest.mark.parametrize("op", LATENT)
def test_nan_and_infinity_propagate_as_in_pytorch(op: str) -> None:
    _skip_if_refused("cpu", op, torch.float32)
    cases = LATENT[op]
    for poison in (float("nan"), float("inf"), float("-inf")):
        for position in cases.differentiable:
            inputs = list(cases.inputs((2, 64), torch.float32, torch.Generator().manual_seed(0)))
            inputs[position] = inputs[position].clone()
            inputs[position].view(-1)[-1] = poison
            got = tree(cases, inputs, "cpu")
            expected = tree(cases, inputs, "reference")
            for a, b in zip(got, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)


def tree(cases: object, inputs: list[torch.Tensor], backend: str) -> list[torch.Tensor]:
    outputs, _, grads = run(cases, inputs, backend, None)  # type: ignore[arg-type]
    return [*outputs, *grads]
