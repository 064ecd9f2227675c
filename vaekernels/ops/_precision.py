"""How exact the convolutions are: the tier in force, and how it is set."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

PRECISIONS = ("medium", "high", "highest")
_in_force: ContextVar[str] = ContextVar("vaekernels_conv_precision", default="high")


def _checked(precision: str, source: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(
            f"{source}: precision must be 'medium', 'high' or 'highest'; got {precision!r}"
        )
    return precision


class _Setting:
    """What :func:`set_conv_precision` returns: leaving it as a context restores the tier."""

    def __init__(self, previous: str) -> None:
        self._previous = previous

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _in_force.set(self._previous)


def set_conv_precision(precision: str) -> _Setting:
    """Say how exact the convolutions are where a call does not.

    Args:
        precision: ``"high"``, the default: an error of at most 2e-5 of the largest result.
            ``"highest"``: the error of plain PyTorch's float32. ``"medium"``: on GPUs float32 is
            multiplied as tf32, as PyTorch does there by default, with an error of at most 2e-3;
            on CPUs the same as ``"high"``. ``docs/convolutions.md`` has the figures.

    Returns:
        An object to use or to ignore: the tier is set at once, in this context (a new thread
        starts with ``"high"``); as ``with vk.set_conv_precision(...)`` the one before comes back
        at the end of the block.

    Raises:
        ValueError: ``precision`` is none of them.

    A function under ``torch.compile`` keeps the tier in force when it was traced. Backward uses
    the tier of its forward.

    Example:
        >>> with vk.set_conv_precision("highest"):
        ...     image = decoder(latent)
    """
    setting = _Setting(_in_force.get())
    _in_force.set(_checked(precision, "set_conv_precision"))
    return setting


def conv_precision(op: str, precision: str | None) -> str:
    """The tier of a call of ``op``: the one asked for, or the one in force.

    Raises:
        ValueError: ``precision`` is not a tier.
    """
    return _in_force.get() if precision is None else _checked(precision, op)


# Dynamo cannot trace a context variable (see registry.select).
conv_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]


def cpu_precision(precision: str) -> str:
    """A tier as the cpu kernels take it: they multiply float32, so "medium" is "high"."""
    return "high" if precision == "medium" else precision
