"""Precision of the convolutions: the current tier, and how it is set."""

from __future__ import annotations

import threading
from collections import deque
from contextvars import ContextVar
from types import TracebackType

PRECISIONS = ("medium", "high", "highest")
_DEFAULT = "high"
_KEPT = 16  # settings; more than there are threads between a call and the block that it opens
_lock = threading.Lock()


def _checked(precision: str, source: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(
            f"{source}: precision must be 'medium', 'high' or 'highest'; got {precision!r}"
        )
    return precision


class _Setting:
    """What :func:`set_conv_precision` returns: of the process, until it is entered as a block.

    Attributes:
        precision: the tier.
        inside: the settings that were made in its block without one of their own.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.inside: deque[_Setting] = deque(maxlen=_KEPT)
        self._outer = _block.get()
        with _lock:
            _process.append(self)
            if self._outer is not None:
                self._outer.inside.append(self)

    def __enter__(self) -> None:
        with _lock:
            _remove(self, _process)
            if self._outer is not None:
                _remove(self, self._outer.inside)
        self._outer = _block.get()
        _block.set(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            for setting in self.inside:
                _remove(setting, _process)
            self.inside.clear()
        _block.set(self._outer)


def _remove(setting: _Setting, settings: deque[_Setting]) -> None:
    if setting in settings:
        settings.remove(setting)


# The last one counts. A block's setting comes before those of the process, in its context.
_process: deque[_Setting] = deque(maxlen=_KEPT)
_block: ContextVar[_Setting | None] = ContextVar("vaekernels_conv_precision", default=None)


def _in_force() -> str:
    block = _block.get()
    with _lock:
        settings = _process if block is None else block.inside
        if settings:
            return settings[-1].precision
    return _DEFAULT if block is None else block.precision


def set_conv_precision(precision: str) -> _Setting:
    """Say how exact the convolutions are where a call does not.

    Args:
        precision: ``"high"``, the default: an error of at most 2e-5 of the largest result.
            ``"highest"``: the error of plain PyTorch's float32. ``"medium"``: on GPUs float32 is
            multiplied as tf32, as PyTorch does there by default, with an error of at most 2e-3;
            on CPUs the same as ``"high"``. ``docs/convolutions.md`` has the figures.

    Returns:
        An object to use or to ignore. The tier is set at once, for the process: for all threads,
        as with ``torch.set_float32_matmul_precision``. As ``with vk.set_conv_precision(...)`` it
        is that of the block alone, in this thread (and asyncio task), and the one before comes
        back at its end.

    Raises:
        ValueError: ``precision`` is none of them.

    A function under ``torch.compile`` keeps the tier in force when it was traced. Backward uses
    the tier of its forward.

    Example:
        >>> with vk.set_conv_precision("highest"):
        ...     image = decoder(latent)
    """
    return _Setting(_checked(precision, "set_conv_precision"))


def conv_precision(op: str, precision: str | None) -> str:
    """The tier of a call of ``op``: the one asked for, or the one in force.

    Raises:
        ValueError: ``precision`` is not a tier.
    """
    return _in_force() if precision is None else _checked(precision, op)


# Dynamo cannot trace a context variable (see registry.select).
conv_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]


def cpu_precision(precision: str) -> str:
    """A tier as the cpu kernels take it: they multiply float32, so "medium" is "high"."""
    return "high" if precision == "medium" else precision
