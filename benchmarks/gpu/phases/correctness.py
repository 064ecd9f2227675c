"""Every op, backend and dtype against float64 on odd shapes; repeatability; bits of the noise."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

import vaekernels as vk
from benchmarks.gpu import exercise
from benchmarks.gpu.kernels import fused_backend
from benchmarks.gpu.phase import Context, Row
from vaekernels.backends import registry
from vaekernels.bench.accuracy import Verdict, compare, conv_floor
from vaekernels.bench.op_inputs import run as run_case

# Of the float32 stream below; the tests compare the CPU's kernels with it.
NOISE_DIGEST = "a8c61df0ef1d305c326e03f8bee4189343d249d4f2b7d8fd0ca7421208c5ab68"
_NOISE_SHAPE = (257, 4, 31, 33)


def run(context: Context) -> Iterator[Row]:
    for backend in registry.RANKING[context.device]:
        if backend != "reference":
            yield noise(backend, context.device)
    found = list(exercise.cases_of(context.device))
    yield from (one._asdict() for one in found if isinstance(one, exercise.Refused))
    cases = [one for one in found if isinstance(one, exercise.Case)]
    with poisoned_memory():
        yield from context.each(
            cases, lambda case: case.name, lambda case, seconds: check(case, context.device)
        )


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill uninitialised memory with NaN, so that elements that are not written are found."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(False)


def noise(backend: str, device: str) -> Row:
    """Whether a backend's noise is bit-equal to the specified stream."""
    name = f"noise, {backend}"
    found, refused = fused_backend("randn", device, torch.float32, backend)
    if found is None:
        return {"name": name, "refused": refused}
    digest = noise_digest(backend, device)
    return {"name": name, "digest": digest, "ok": digest == NOISE_DIGEST}


def noise_digest(backend: str, device: str) -> str:
    """SHA-256 of a million numbers, with a seed, a step and identities of 64 bits."""
    ids = (torch.arange(_NOISE_SHAPE[0]) * 0x3779B97F4A7C15).to(device)
    numbers = vk.randn(
        _NOISE_SHAPE,
        seed=-(2**40) + 7,
        step=2**32 - 3,
        sample_ids=ids,
        device=device,
        dtype=torch.float32,
        backend=backend,
    )
    return hashlib.sha256(numbers.cpu().numpy().tobytes()).hexdigest()


def check(case: exercise.Case, device: str) -> Row:
    """The largest excess over the shapes, and whether two runs have the same bits."""
    row: Row = {"backend": case.backend, "shapes": len(case.shapes), "excess": -1.0}
    repeatable = True
    for name, shape in case.shapes.items():
        inputs = exercise.inputs(case, shape, device)
        verdict, again = _check(case, inputs, shape)
        repeatable &= again
        if not verdict.excess <= row["excess"]:  # a NaN is the largest
            row |= {**verdict.row(), "worst": name}
        if not verdict.ok:
            break
    return {**row, "repeatable": repeatable, "ok": row["ok"] and repeatable}


def _check(
    case: exercise.Case, inputs: tuple[Tensor, ...], shape: tuple[int, ...]
) -> tuple[Verdict, bool]:
    outputs, grads, gradients = exercise.run(case, inputs)
    got = [*outputs, *gradients]
    outputs, _, gradients = exercise.run(case, inputs, grads)
    again = [*outputs, *gradients]
    outputs, _, gradients = run_case(case.cases, inputs, "reference", grads)
    eager = [*outputs, *gradients]
    wide, wide_grads = ([t.double() for t in tensors] for tensors in (inputs, grads))
    outputs, _, gradients = run_case(case.cases, wide, "reference", wide_grads)
    exact = [*outputs, *gradients]
    types = [[tensor.dtype for tensor in tensors] for tensors in (got, eager)]
    if types[0] != types[1]:
        raise TypeError(f"expected {types[1]}, as of plain PyTorch; got {types[0]}")
    same = all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    floor = conv_floor(case.cases.op, case.dtype, case.precision)
    return compare(got, eager, exact, shape, floor), same
