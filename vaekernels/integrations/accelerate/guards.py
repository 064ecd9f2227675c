"""Guards of a trace: the globals, closures, functions and methods that the traced code reads.

``torch.fx`` specialises a graph on their values. They are found by inspecting the code of the
class, of functions in its file, and of functions in other files that called an operation during
tracing, and are compared at each call. PyTorch's own code is not inspected.
"""

from __future__ import annotations

import dis
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaekernels.nn.unmodified import is_from_torch

ABSENT = object()
_WITHOUT_NAMES = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, Tensor)
# Their results describe the proxies of a trace, or they have effects that tracing does not record.
_BUILTINS = frozenset(
    ("type", "id", "print", "input", "open", "eval", "exec", "globals", "locals", "vars")
)
_CHANGEABLE = (dict, list, set, bytearray)


class Untraceable(Exception):
    """Why a forward cannot be traced."""


class Read(NamedTuple):
    """A name that was read.

    Attributes:
        place: the mapping that contains it, or the cell of a closure.
        name: the key.
        value: the value; ABSENT if there was none.
    """

    place: Any
    name: str
    value: object

    def is_unchanged(self) -> bool:
        """Whether reading it returns the same object."""
        if type(self.place) is CellType:
            return self.place.cell_contents is self.value
        return self.place.get(self.name, ABSENT) is self.value


class AttributeRead(Read):
    """An attribute that was read of the object ``place``, possibly inherited or computed."""

    def is_unchanged(self) -> bool:
        """Whether reading it returns the same object."""
        return getattr(self.place, self.name, ABSENT) is self.value


_parts_of_function = operator.attrgetter("__code__", "__defaults__", "__kwdefaults__")
# The code of a function and its globals.
Helpers = Mapping[CodeType, dict[str, Any]]


class FunctionRead(Read):
    """The code and defaults of a Python function, ``place``, which hot reload replaces."""

    def is_unchanged(self) -> bool:
        """Whether they are the same objects."""
        return all(map(operator.is_, _parts_of_function(self.place), self.value))  # type: ignore[call-overload]


def reads_of_function(function: Any) -> tuple[Read, ...]:
    """The guard of a Python function; none for one of PyTorch's."""
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType) or is_from_torch(function):
        return ()
    return (FunctionRead(function, function.__name__, _parts_of_function(function)),)


def reads_of(function: Any, kind: type[nn.Module], helpers: Helpers) -> tuple[Read, ...]:
    """What a call of ``function`` may read, besides the attributes of its module.

    Args:
        function: a forward.
        kind: the class of the module.
        helpers: other code that ran during tracing.

    Raises:
        Untraceable: it sets globals, or reads a mutable object, whose changes have no guard.
    """
    reader = _Reader(kind, function)
    reader.method("forward")
    reader.function(function)
    for code, names in helpers.items():
        reader.code(code, names, ())
    return tuple(reader.found.values())


def running_code(frame: FrameType | None, last: CodeType) -> Helpers:
    """The code of ``frame`` and its callers up to ``last``, without PyTorch's."""
    found = {}
    while frame is not None and frame.f_code is not last:
        if not str(frame.f_globals.get("__name__", "")).startswith(("torch.", "vaekernels.")):
            found[frame.f_code] = frame.f_globals
        frame = frame.f_back
    return found


@dataclass(frozen=True)
class _Names:
    """The names that a code object and its nested ones use."""

    of_globals: frozenset[str]
    of_attributes: frozenset[str]
    stored_globals: frozenset[str]
    stored_cells: frozenset[str]


@functools.lru_cache(maxsize=4096)
def _names_of(code: CodeType) -> _Names:
    found: dict[str, set[str]] = {"GLOBAL": set(), "ATTR": set(), "STORED": set(), "DEREF": set()}
    for instruction in _instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            found["GLOBAL"].add(name)
        elif operation in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            found["ATTR"].add(name)
        elif operation in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            found["STORED"].add(name)
        elif operation == "STORE_DEREF":
            found["DEREF"].add(name)
    return _Names(*(frozenset(found[key]) for key in ("GLOBAL", "ATTR", "STORED", "DEREF")))


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)


class _Reader:
    def __init__(self, kind: type[nn.Module], forward: Any) -> None:
        self.found: dict[tuple[int, str], Read] = {}
        self._kinds = [k for k in kind.__mro__ if k not in nn.Module.__mro__]
        self._files = {getattr(forward, "__module__", ""), *(k.__module__ for k in self._kinds)}
        self._walked: set[tuple[object, ...]] = set()
        self._read_by: set[tuple[int, str, frozenset[str]]] = set()

    def function(self, function: Any) -> None:
        """Inspect ``function``, if it is a Python function of a file of the module."""
        function = getattr(function, "__func__", function)
        if not isinstance(function, FunctionType) or is_from_torch(function):
            return
        for read in reads_of_function(function):
            self.found[id(function), read.name] = read
        if function.__module__ in self._files:
            self.code(function.__code__, function.__globals__, function.__closure__ or ())
        else:  # a decorator
            self.function(getattr(function, "__wrapped__", None))

    def code(self, code: CodeType, place: dict[str, Any], cells: Sequence[CellType]) -> None:
        """Add what ``code`` reads, given its globals and the cells of its closure."""
        key = (code, *map(id, cells))  # the closures of a decorator share their code
        if key in self._walked:
            return
        self._walked.add(key)
        names = _names_of(code)
        for name in names.stored_globals:
            raise Untraceable(f"it sets the global {name}")
        for name in names.stored_cells.intersection(code.co_freevars):
            raise Untraceable(f"it sets {name} of the function around it")
        for name in (names.of_globals & _BUILTINS) - place.keys():
            raise Untraceable(f"it calls {name}()")
        for name in names.of_globals & place.keys():
            self._read(names, place, place, name, place[name])
        for name, cell in zip(code.co_freevars, cells, strict=False):
            if name != "__class__":
                self._read(names, cell, cell, name, cell.cell_contents)
        for name in names.of_attributes:
            self.method(name)

    def method(self, name: str) -> None:
        """Add the method ``name`` of the class, and of its bases, for ``super()``."""
        if not any(name in vars(kind) for kind in self._kinds):
            return
        for kind in self._kinds:
            value = vars(kind).get(name, ABSENT)
            self.found.setdefault((id(kind), name), Read(vars(kind), name, value))
            for part in (value, getattr(value, "fget", None)):
                self.function(part)

    def _read(self, names: _Names, owner: Any, place: Any, name: str, value: Any) -> None:
        # Several functions may read different attributes of one object.
        if (id(owner), name, names.of_attributes) in self._read_by:
            return
        self._read_by.add((id(owner), name, names.of_attributes))
        if isinstance(value, _CHANGEABLE):
            raise Untraceable(f"it reads {name}, whose changes would go unseen")
        self.found[id(owner), name] = Read(place, name, value)
        self.function(value)
        if isinstance(value, (*_WITHOUT_NAMES, FunctionType)):
            return
        for holder, inside in _namespaces(value):
            for attribute in names.of_attributes & inside.keys():
                self._read(names, holder, inside, attribute, inside[attribute])


def _namespaces(value: Any) -> list[tuple[Any, Any]]:
    """The owners of the attributes of a module, a class or an object, and their namespaces."""
    if isinstance(value, type):
        return [(kind, vars(kind)) for kind in value.__mro__ if not is_from_torch(kind)]
    return [(value, vars(value))] if hasattr(value, "__dict__") else []
