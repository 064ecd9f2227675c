"""Every op on odd shapes: the cases that are checked and compiled ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import vaekernels as vk
from benchmarks.gpu.kernels import fused_backend, tap_gemm
from vaekernels.backends import registry
from vaekernels.bench.op_inputs import CONV, LATENT, NORM, ODD_SHAPES, RESNET, ConvShape, OpCases
from vaekernels.bench.op_inputs import run as run_op

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_CONV_SHAPES: dict[str, tuple[int, ...]] = {
    "one": ConvShape(1, 1, 1, 2, 2),
    "image": ConvShape(2, 3, 32, 17, 33),
    "odd": ConvShape(2, 20, 36, 9, 15),
    "aligned": ConvShape(1, 64, 128, 16, 16),
    "wide": ConvShape(3, 96, 160, 11, 24),
}
_NORM_SHAPES: dict[str, tuple[int, ...]] = {
    "odd": (1, 96, 57, 57),
    "small": (3, 20, 7, 5),
    "vae": (2, 128, 64, 64),
    "wide": (1, 512, 32, 32),
}
_RESNET_SHAPES = {name: _CONV_SHAPES[name] for name in ("odd", "aligned", "wide")}


class Refused(NamedTuple):
    """A case without kernels, and the reason."""

    name: str
    refused: str


@dataclass(frozen=True)
class Case:
    """An op on a backend in one dtype; convolutions in one tier."""

    name: str
    cases: OpCases
    shapes: dict[str, tuple[int, ...]]
    backend: str
    dtype: torch.dtype
    precision: str = "high"


def cases_of(device: str) -> Iterator[Case | Refused]:
    """Every op with every backend of the device in every dtype."""
    families = [
        *((cases.op, cases, ODD_SHAPES) for cases in LATENT.values()),
        *((cases.op, cases, _CONV_SHAPES) for cases in CONV.values()),
        *((cases.op, cases, _NORM_SHAPES) for cases in NORM.values()),
        ("conv3x3 in a block", RESNET, _RESNET_SHAPES),
    ]
    for name, cases, shapes in families:
        for backend in registry.RANKING[device]:
            if backend == "reference":
                continue
            for dtype in DTYPES:
                title = f"{name}, {backend}, {str(dtype).removeprefix('torch.')}"
                found, refused = fused_backend(cases.op, device, dtype, backend)
                if found is None:
                    yield Refused(title, refused)
                    continue
                yield Case(title, cases, shapes, backend, dtype)
                if cases.op in CONV and backend == "triton" and dtype == torch.float32:
                    # A single result may be small relative to its terms and their errors.
                    several = {key: shape for key, shape in shapes.items() if key != "one"}
                    yield Case(f"{title} medium", cases, several, backend, dtype, "medium")


def inputs(case: Case, shape: tuple[int, ...], device: str) -> tuple[Tensor, ...]:
    """Drawn on the device."""
    with torch.device(device):
        return case.cases.inputs(shape, case.dtype, torch.Generator(device).manual_seed(0))


def run(
    case: Case, tensors: Sequence[Tensor], grads: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs, their gradients and the inputs'; Triton's convolutions by our own kernel."""
    ours = tap_gemm() if case.backend == "triton" else contextlib.nullcontext()
    with ours, vk.set_conv_precision(case.precision):
        return run_op(case.cases, tensors, case.backend, grads)


def compile_all(names: Sequence[str], device: str) -> list[str]:
    """Run the cases of these names once, to compile their kernels; returns the errors.

    Several processes do this in parallel and share one cache of compiled kernels.
    """
    failed = []
    for case in cases_of(device):
        if isinstance(case, Case) and case.name in names:
            try:
                for shape in case.shapes.values():
                    run(case, inputs(case, shape, device))
            except Exception as failure:  # the phase "correctness" reports it per case
                failed.append(f"{case.name}: {type(failure).__name__}")
    return failed
