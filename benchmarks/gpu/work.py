"""One comparison: ours and eager on the same inputs, checked, then timed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import checks, clock
from benchmarks.gpu.phase import Row
from vaekernels.backends import registry
from vaekernels.bench.workloads import LAYOUTS, Call, Inputs, Layout, laid_out

DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Work:
    """What one row measures.

    Attributes:
        group: what the goals call it.
        op: whose kernels run.
        case: the shapes, for people.
        direction: ``"forward"``, ``"backward"`` or ``"forward+backward"``.
        inputs: from a generator: name -> tensor, in any dtype, on the generator's device.
        eager: inputs -> a call without arguments, of what users write.
        ours: the same with our op; ``backend=`` is given.
        images: the inputs are; eager runs in both layouts, ours in channels_last.
        witness: eager with the noise of ours, for the check; None: ``eager``.
        passes: how often a tensor of the size of the first input is read or written, at least.
        backend: that ours must run on; None: what the registry chooses.
    """

    group: str
    op: str
    case: str
    direction: str
    inputs: Callable[[torch.Generator], Mapping[str, Tensor]]
    eager: Callable[[Inputs], Call]
    ours: Callable[..., Call]
    images: bool = False
    witness: Callable[[Inputs], Call] | None = None
    passes: int | None = None
    backend: str | None = None

    @property
    def name(self) -> str:
        """Of the row."""
        return ", ".join((self.op, self.case, self.direction))


def measure(work: Work, seconds: float, *, device: str, dtype: torch.dtype = DTYPE) -> Row:
    """Check, then time; a wrong result has no time, and an op without kernels none of ours.

    Args:
        work: what to measure.
        seconds: of measuring.
        device: where.
        dtype: of the inputs.

    Returns:
        A row: the work; ``backend``, or ``refused``, why there is none; ``error``,
        ``eager_error``, ``excess``, ``ok``; ``ms`` and ``spread`` of ``eager_nchw``,
        ``eager_channels_last`` (of images) and ``ours``; where the passes are known ``gbps``, the
        rate that ours has if it makes no more.
    """
    inputs = draw(work.inputs, device, dtype)
    row: Row = {"group": work.group, "op": work.op, "case": work.case, "direction": work.direction}
    backend, refused = fused_backend(work.op, device, dtype, work.backend)
    layouts: tuple[Layout, ...] = tuple(LAYOUTS) if work.images else ("nchw",)
    sides: dict[str, tuple[Callable[[Inputs], Call], Layout]] = {
        f"eager_{layout}": (work.eager, layout) for layout in layouts
    }
    if backend is None:
        row["refused"] = refused
    else:
        row["backend"] = backend
        ours = partial(work.ours, backend=backend)
        verdict = _check(work, ours, inputs)
        row |= verdict.row()
        if verdict.ok:
            sides["ours"] = ours, layouts[-1]
        torch.cuda.empty_cache()
    sets = clock.rotated(inputs, device)
    row["buffers"] = len(sets)
    contenders = {}
    for name, (make, layout) in sides.items():
        placed = [laid_out(one, layout, filters=name != "ours") for one in sets]
        contenders[name] = clock.replayed(make, placed, device)
    row |= clock.medians(clock.timings(contenders, seconds=seconds))
    if work.passes is not None and "ours" in row["ms"]:
        first = next(iter(inputs.values()))
        moved = work.passes * first.numel() * first.element_size()
        row["gbps"] = moved / row["ms"]["ours"] / 1e6
    return row


def draw(
    inputs: Callable[[torch.Generator], Mapping[str, Tensor]], device: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The inputs of a work, drawn on the device."""
    generator = torch.Generator(device).manual_seed(0)
    with torch.device(device):
        return {name: tensor.to(dtype) for name, tensor in inputs(generator).items()}


def fused_backend(
    op: str, device: str, dtype: torch.dtype, wanted: str | None = None
) -> tuple[str | None, str]:
    """The backend with kernels for such tensors; or None, and why there is none."""
    if wanted is None:
        wanted = registry.select(op, device, dtype)
        if wanted != "reference":
            return wanted, ""
        names = [name for name in registry.RANKING[device] if name != "reference"]
    else:
        names = [wanted]
    reasons = {name: registry.refusals(name, op, device, dtype) for name in names}
    if wanted in reasons and not reasons[wanted]:
        return wanted, ""
    return None, "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())


def tap_gemm(tile: Any = None) -> contextlib.AbstractContextManager[None]:
    """Inside, Triton's convolutions are our own product, where cuDNN might be chosen."""
    choice = importlib.import_module("vaekernels.backends.triton.conv.dispatch")
    made: contextlib.AbstractContextManager[None] = choice.force_algorithm("tap_gemm", tile)
    return made


def _check(work: Work, ours: Callable[[Inputs], Call], inputs: Inputs) -> checks.Verdict:
    witness = work.witness or work.eager
    shape = next(iter(inputs.values())).shape
    mine = laid_out(inputs, "channels_last" if work.images else "nchw", filters=False)
    got = checks.snapshot(ours(mine))
    eager = checks.snapshot(witness(laid_out(inputs, "nchw")))
    exact = checks.snapshot(witness({name: t.double() for name, t in inputs.items()}))
    return checks.compare(got, eager, exact, shape, checks.floor(work.op, got[0].dtype))
