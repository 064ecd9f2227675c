"""The algorithm that computes a convolution, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vaekernels.backends import extension, registry
from vaekernels.ops._filters import keeps_filters
from vaekernels.ops._precision import cpu_precision


@dataclass(frozen=True)
class ConvAlgorithm:
    """How one direction of a convolution is computed.

    Attributes:
        name: ``"winograd F(4x4, 3x3)"`` and the like; ``"few_outputs"`` and ``"few_inputs"``, those
            for few output and input channels; ``"tap-GEMM 128x256x64"`` and the like, of the
            Triton kernels, with the tile; ``"cudnn"`` and ``"library"``, PyTorch's own
            convolution on a GPU and on a CPU; on a GPU ``tf32`` behind it, where float32 is
            multiplied as that.
        reason: why this one.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ConvAlgorithms(NamedTuple):
    """Those of the three directions.

    Attributes:
        forward: of the result.
        x_gradient: of the gradient of ``x``, if it is wanted.
        weight_gradient: of the gradient of ``weight``, if it is wanted.
    """

    forward: ConvAlgorithm
    x_gradient: ConvAlgorithm
    weight_gradient: ConvAlgorithm


def algorithms_of(choice: registry.Choice) -> ConvAlgorithms:
    """How the call of a convolution is computed.

    Args:
        choice: recorded with its arguments. Whether gradients are recorded now counts.
    """
    if choice.backend == "reference":
        return ConvAlgorithms(
            *[ConvAlgorithm("library", "the reference is PyTorch's own convolution")] * 3
        )
    arguments = choice.arguments
    x, weight, precision = (arguments[name] for name in ("x", "weight", "precision"))
    if choice.backend == "triton":
        from vaekernels.backends.triton.conv import op_calls

        # Autocast casts what the op was given.
        seen = {**arguments, "weight": weight.to(choice.dtype)}
        return ConvAlgorithms(
            *(ConvAlgorithm(*answer) for answer in op_calls.explain(choice.op, seen))
        )
    answers = extension.load().explain_conv(
        choice.op,
        list(x.shape),
        list(weight.shape),
        arguments.get("padding"),
        cpu_precision(precision),
        [keeps_filters(weight, backward=backward) for backward in (False, True)],
    )
    return ConvAlgorithms(*(ConvAlgorithm(*answer) for answer in answers))
