"""Results that hold tensors: in tuples, lists, mappings and dataclasses, nested."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


def tensors_of(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in ``value``, each with its place: ``"sample"``, ``"0.mean"``; "" for itself."""
    if isinstance(value, Tensor):
        yield place, value
    for name, item in _items(value) or ():
        yield from tensors_of(item, f"{place}.{name}" if place else name)


def map_tensors(
    value: Any,
    change: Callable[[str, Tensor], Tensor],
    other: Callable[[Any], Any] = lambda value: value,
    place: str = "",
) -> Any:
    """A copy of ``value`` with changed tensors.

    Args:
        value: what holds them.
        change: of a place, as in :func:`tensors_of`, and the tensor there.
        other: of what holds nothing that is known; as it is by default.
        place: of ``value``.
    """
    if isinstance(value, Tensor):
        return change(place, value)
    items = _items(value)
    if items is None:
        return other(value)
    return _with_items(
        value,
        [
            map_tensors(item, change, other, f"{place}.{name}" if place else name)
            for name, item in items
        ],
    )


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """What ``value`` holds, by name; None where it is no container."""
    # diffusers' outputs are dataclasses, and dicts of those fields that are not None.
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        return [(str(name), item) for name, item in zip(names, value, strict=True)]
    return None


def _with_items(value: Any, items: Sequence[Any]) -> Any:
    """A copy of the container ``value`` that holds ``items``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = zip(dataclasses.fields(value), items, strict=True)
        return dataclasses.replace(value, **{f.name: item for f, item in fields if f.init})
    if isinstance(value, Mapping):
        made = copy.copy(value) if isinstance(value, dict) else dict(value)
        made.update(zip(value, items, strict=True))
        return made
    if isinstance(value, tuple):
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return list(items)
