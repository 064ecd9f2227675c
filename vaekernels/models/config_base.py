"""What the configurations share: JSON both ways, and checks of single fields."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, TypeVar

from vaekernels.utils.limits import LARGEST_FLOAT, LARGEST_SIZE, MOST_LAYERS, parse_json

Self = TypeVar("Self", bound="Config")


@dataclasses.dataclass(frozen=True)
class Config:
    """Plain values that decide an architecture; fields are those of the subclass."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls: type[Self], values: dict[str, Any]) -> Self:
        """The configuration with these fields.

        Raises:
            TypeError: ``values`` is not a dictionary, or a field has the wrong kind.
            ValueError: a key is unknown or missing, or a value is not possible.
        """
        name = cls.__name__
        if not isinstance(values, dict):
            raise TypeError(f"{name}: expected an object with fields; got {type(values).__name__}")
        fields = dataclasses.fields(cls)
        names = [field.name for field in fields]
        unknown = sorted(str(key) for key in set(values) - set(names))
        if unknown:
            raise ValueError(
                f"{name}: expected keys among {', '.join(names)}; got {', '.join(unknown)}"
            )
        required = [f.name for f in fields if f.default is dataclasses.MISSING]
        missing = [field for field in required if field not in values]
        if missing:
            raise ValueError(
                f"{name}: {', '.join(missing)} must be given; got keys {sorted(values)}"
            )
        return cls(**values)

    @classmethod
    def from_json(cls: type[Self], text: str) -> Self:
        """The configuration written by :meth:`to_json`; raises as :meth:`from_dict`."""
        return cls.from_dict(parse_json(cls.__name__, text))

    def _size(self, name: str, value: object, most: int = LARGEST_SIZE) -> int:
        # bool is an int for isinstance.
        if type(value) is not int:
            raise TypeError(f"{type(self).__name__}: {name} must be an integer; got {value!r}")
        if value < 1:
            raise ValueError(f"{type(self).__name__}: {name} must be at least 1; got {value}")
        if value > most:
            raise ValueError(f"{type(self).__name__}: {name} must be at most {most}; got {value}")
        return value

    def _sizes(self, name: str, values: object, most: int = LARGEST_SIZE) -> tuple[int, ...]:
        if not isinstance(values, (tuple, list)):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a tuple of integers; got {values!r}"
            )
        if len(values) > MOST_LAYERS:
            raise ValueError(
                f"{type(self).__name__}: {name} must have at most {MOST_LAYERS} entries; "
                f"got {len(values)}"
            )
        return tuple(self._size(f"{name}[{at}]", value, most) for at, value in enumerate(values))

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{type(self).__name__}: {name} must be a number; got {value!r}")
        if not abs(value) < math.inf:
            raise ValueError(f"{type(self).__name__}: {name} must be finite; got {value}")
        if abs(value) > LARGEST_FLOAT:
            raise ValueError(
                f"{type(self).__name__}: {name} must be at most {LARGEST_FLOAT:.3g}; got {value}"
            )
        return float(value)

    def _one_of(self, name: str, value: object, choices: tuple[str, ...]) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{type(self).__name__}: {name} must be a string; got {value!r}")
        if value not in choices:
            raise ValueError(
                f"{type(self).__name__}: {name} must be one of {', '.join(choices)}; got {value!r}"
            )

    def _only(self, name: str, value: object, possible: object) -> None:
        """A field that has one value here."""
        if value != possible:
            raise ValueError(f"{type(self).__name__}: {name} must be {possible!r}; got {value!r}")
