"""``vaekernels bench latent``: the latent ops and the losses against eager PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vaekernels.bench.op_inputs import LATENT
from vaekernels.bench.workloads import Workload, of_op

OPS = tuple(LATENT)
DIRECTIONS = ("forward", "forward+backward")


def works(
    only: Sequence[str] = (), *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Workload]:
    """The rows of the ops in ``only``, or of all.

    Args:
        only: names of ops.
        device: where to measure.
        dtype: of the inputs.
    """
    return [
        of_op(op, LATENT[op], shape, direction, case=case, device=device, dtype=dtype)
        for op in OPS
        if not only or op in only
        for case, shape in LATENT[op].shapes.items()
        for direction in DIRECTIONS
    ]
