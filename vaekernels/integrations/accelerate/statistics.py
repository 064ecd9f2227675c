"""The statistics of a convolution's result, on their way to the normalisation that reads it.

Between two modules are calls that know tensors alone. So what an op learned of its result stays
with the tensor, as an attribute, as long as the tensor is what it was: each change in place
counts as a version of it. ``torch.compile`` does not trace such attributes; there, every
normalisation takes its statistics itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaekernels.ops._chained import chained_conv

_ATTRIBUTE = "_vaekernels_statistics"


def convolve(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, asks: bool, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The result of ``op``, normalised by the statistics that x has, and its own if ``asks``.

    Args:
        op: of :func:`chained_conv`.
        x: the images.
        weight: the filters.
        bias: per channel, or None.
        asks: whether a normalisation comes next.
        options: of :func:`chained_conv`.
    """
    compiling = torch.compiler.is_compiling()
    if options.get("norm") is not None and not compiling:
        options["statistics"] = statistics_of(x)
    return chained_conv(op, x, weight, bias, asks=asks and not compiling, **options)


def keep(y: Tensor, statistics: Tensor | None) -> Tensor:
    """``y``, which has these statistics from now on; not where it counts no changes."""
    if statistics is not None and not y.is_inference():
        setattr(y, _ATTRIBUTE, (y._version, statistics))
    return y


def statistics_of(x: Tensor) -> Tensor | None:
    """Those that were kept with ``x``; None where it was changed since."""
    version, statistics = getattr(x, _ATTRIBUTE, (None, None))
    return statistics if statistics is not None and x._version == version else None
