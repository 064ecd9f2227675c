"""Fields of dataclasses that are checked by :func:`check_fields`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from vaekernels.utils.limits import LARGEST_FLOAT, LARGEST_SIZE

_KINDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def checked(default: Any, check: Callable[[str, Any], None] | None = None) -> Any:
    """A field of the type of ``default`` whose value ``check(name, value)`` accepts."""
    return dataclasses.field(default=default, metadata={"check": check})


def size(default: int) -> Any:
    """An integer of at least 1."""

    def check(name: str, value: int) -> None:
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
        if value > LARGEST_SIZE:
            raise ValueError(f"{name} must be at most {LARGEST_SIZE}; got {value}")

    return checked(default, check)


def number(default: float, *, positive: bool = False, below: float = math.inf) -> Any:
    """A finite number, not negative, or positive; and below a bound."""

    def check(name: str, value: float) -> None:
        if not (0 <= value < math.inf) or (value == 0 and positive):
            sign = "positive" if positive else "not negative"
            raise ValueError(f"{name} must be finite and {sign}; got {value}")
        if value > LARGEST_FLOAT:
            raise ValueError(
                f"{name} must be at most {LARGEST_FLOAT:.3g}, what float32 holds; got {value}"
            )
        if value >= below:
            raise ValueError(f"{name} must be less than {below:g}; got {value}")

    return checked(default, check)


def choice(default: str, names: Iterable[str]) -> Any:
    """One of ``names``."""
    expected = tuple(names)

    def check(name: str, value: str) -> None:
        if value not in expected:
            raise ValueError(f"{name} must be one of {', '.join(expected)}; got {value!r}")

    return checked(default, check)


def check_fields(config: Any) -> None:
    """Raise unless every field of the dataclass ``config`` has its type and a possible value.

    Raises:
        TypeError: a field has another type than its default; integers are numbers, bools are not.
        ValueError: the check of a field does not accept its value.
    """
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        kinds = (float, int) if kind is float else (kind,)
        # A bool, for isinstance, is an integer.
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(
                f"{field.name} must be {_KINDS[kind]}; got {value!r} ({type(value).__name__})"
            )
        check = field.metadata.get("check")
        if check is not None:
            check(field.name, value)
