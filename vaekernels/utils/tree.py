"""Tensors in nested tuples, lists, mappings and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in ``value`` with their paths: ``"sample"``, ``"0.mean"``, or "" for itself."""
    if isinstance(value, Tensor):
        yield path, value
    for name, item in _items(value) or ():
        yield from tensors_of(item, f"{path}.{name}" if path else name)


def map_tensors(
    value: Any,
    change: Callable[[str, Tensor], Tensor],
    convert_leaf: Callable[[Any], Any] = lambda value: value,
    path: str = "",
) -> Any:
    """Copy ``value`` with ``change`` applied to its tensors.

    Args:
        value: a tensor or a nested container.
        change: maps the path of a tensor, as in :func:`tensors_of`, and the tensor to a tensor.
        convert_leaf: maps objects that are neither tensors nor containers; the identity by default.
        path: path of ``value``.
    """
    if isinstance(value, Tensor):
        return change(path, value)
    items = _items(value)
    if items is None:
        return convert_leaf(value)
    return _with_items(
        value,
        [
            map_tensors(item, change, convert_leaf, f"{path}.{name}" if path else name)
            for name, item in items
        ],
    )


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """The names and items of a container, or None for other objects."""
    # diffusers' outputs are dataclasses, and also dicts of the fields that are not None.
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", range(len(value)))
        return [(str(name), item) for name, item in zip(names, value, strict=True)]
    return None


def _with_items(value: Any, items: Sequence[Any]) -> Any:
    """Copy the container ``value`` with ``items`` in place of its items."""
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
