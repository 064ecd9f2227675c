"""Statistics of a convolution's result, for the normalisation that reads it.

They are passed on as an attribute of the tensor, since modules exchange nothing but tensors. An
in-place change of the tensor increments its version and so invalidates them. ``torch.compile`` does
not trace such attributes; compiled normalisations compute their statistics themselves.
"""

from __future__ import annotations

from torch import Tensor

_ATTRIBUTE = "_vaekernels_statistics"


def attach_statistics(y: Tensor, statistics: Tensor | None) -> Tensor:
    """``y`` with ``statistics`` attached; unchanged where it has no version counter."""
    if statistics is not None and not y.is_inference():
        setattr(y, _ATTRIBUTE, (y._version, statistics))
    return y


def statistics_of(x: Tensor) -> Tensor | None:
    """The statistics attached to ``x``; None where there are none, or ``x`` was changed since."""
    version, statistics = getattr(x, _ATTRIBUTE, (None, None))
    return statistics if statistics is not None and x._version == version else None
