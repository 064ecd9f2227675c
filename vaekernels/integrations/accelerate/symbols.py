"""Symbols, which stand for tensors while a forward is followed, and their tracer."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, NoReturn

import torch
from torch import Tensor, fx
from torch.fx.proxy import GraphAppendingTracer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vaekernels.integrations.accelerate.guards import Untraceable, running_code
from vaekernels.nn.unmodified import is_from_torch

# Whose questions for the class of a symbol are about the symbol, not about what it stands for.
_MACHINERY = (
    "torch.fx",
    "torch.overrides",
    "torch.utils._pytree",
    "torch.utils.checkpoint",
    __name__,
)
_ARGUMENTS = (
    *(fx.Node, tuple, list, dict, slice, range, bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, type(Ellipsis)),
)
_IN_PLACE = (
    *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
    *("iand", "ior", "ixor", "ilshift", "irshift"),
)
_AUTOGRAD_FUNCTION = ("torch.autograd.function", "torch._functorch.utils")
# Protocols by which Python, NumPy and PyTorch make a value of an object, or a copy: none is known.
_VALUES = (
    *("complex", "float", "index", "int", "len", "round", "trunc", "floor", "ceil", "divmod"),
    *("rdivmod", "contains", "reversed", "setitem", "delitem", "array", "array_ufunc"),
    *("array_function", "dlpack", "dlpack_device", "buffer", "copy", "deepcopy", "reduce"),
    *("reduce_ex", "getstate", "repr", "str", "format"),
)


class Symbol(fx.Proxy):
    """Stands for what a tensor's place holds, and never claims to be one.

    PyTorch's C++ reads the memory of what says that it is a tensor. So the class of a symbol is
    its own; a forward that asks for it, which would take the wrong branch, is not followed.
    """

    tracer: Tracer

    def __init__(self, node: fx.Node, tracer: Tracer) -> None:
        self.__dict__.update(node=node, tracer=tracer)  # setting attributes is refused

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Asked by ``isinstance``, also where C++ checks an argument.

        Nothing is raised, because C++ may ask where it can handle no exception.
        """
        kind = type(self)
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if not asking.startswith(_MACHINERY):
            if asking in _AUTOGRAD_FUNCTION:
                self.tracer.note("it calls an autograd function")
            else:
                self.tracer.note(f"it asks for the class of {self.node.name}")
        return kind

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Tensor, name):
            if not name.startswith("__"):
                self.tracer.note(f"it asks {self.node.name} for .{name}")
            raise AttributeError(f"'Tensor' object has no attribute '{name}'")
        if callable(getattr(Tensor, name)):
            return _Method(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self.tracer.refuse(f"it sets .{name} of a tensor")

    def keys(self) -> Any:
        """A tensor has none."""
        self.tracer.refuse(f"it asks {self.node.name} for .keys")


class _Method(Symbol):
    """A method of what a symbol stands for, mostly to be called."""

    def __init__(self, of: Symbol, name: str) -> None:
        self.__dict__.update(tracer=of.tracer, of=of, name=name)

    @functools.cached_property
    def node(self) -> fx.Node:  # type: ignore[override]
        """The method itself, as a value."""
        of, name = self.__dict__["of"], self.__dict__["name"]
        return self.tracer.create_proxy("call_function", getattr, (of, name), {}).node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        of, name = self.__dict__["of"], self.__dict__["name"]
        return self.tracer.create_proxy("call_method", name, (of, *args), kwargs)


def _recorded_in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)

    def in_place(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return in_place


def _refused(name: str) -> Callable[..., NoReturn]:
    def refused(self: Symbol, *args: Any, **kwargs: Any) -> NoReturn:
        self.tracer.refuse(f"it uses the value of {self.node.name} ({name})")

    return refused


for _name in _IN_PLACE:
    # torch.fx has none of these, and Python would take y = y + x for y += x.
    setattr(Symbol, f"__{_name}__", _recorded_in_place(_name))
for _name in _VALUES:
    setattr(Symbol, f"__{_name}__", _refused(_name))


class Tracer(GraphAppendingTracer):
    """Records until something cannot be recorded; then nothing any more.

    A forward may catch what is raised. So the reason is kept, and counts in the end.
    """

    def __init__(self, graph: fx.Graph, last: CodeType) -> None:
        super().__init__(graph)
        self._last = last
        self.refusal: str | None = None
        self.helpers: dict[CodeType, dict[str, Any]] = {}
        self._surroundings = _surroundings()

    def note(self, reason: str) -> None:
        """Keep why the forward cannot be followed; the first reason counts."""
        self.refusal = self.refusal or reason

    def refuse(self, reason: str) -> NoReturn:
        """Raise what ends the tracing."""
        self.note(reason)
        raise Untraceable(self.refusal)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if self.refusal is not None:
            raise Untraceable(self.refusal)
        if kind == "call_function" and _is_replaced(target):
            self.refuse(f"a function of PyTorch was replaced by {target.__name__}")
        # A graph has one for all of its nodes: those of the call.
        for name, now in _surroundings().items():
            if now != self._surroundings[name]:
                self.refuse(f"it changes {name} for a part of itself")
        self.helpers.update(running_code(sys._getframe(1), self._last))
        return super().create_node(kind, target, *args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Symbol(node, self)

    def create_arg(self, a: Any) -> Any:
        # torch.fx would take a named tuple or a subclass of dict for a plain one.
        if not issubclass(type(a), fx.Proxy) and type(a) not in _ARGUMENTS:
            self.refuse(f"it makes or passes on a {type(a).__name__}")
        return super().create_arg(a)

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.refuse("symbolically traced variables cannot be used as inputs to control flow")

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        self.refuse(f"it iterates over {obj.node.name}")


def _is_replaced(function: Any) -> bool:
    """Whether a function of PyTorch is called around this one, or by its name another one is.

    PyTorch hands the one that has its name on to be recorded, and code of torch.fx calls that.
    """
    if isinstance(function, FunctionType) and not is_from_torch(function):
        return True
    place = sys.modules.get(getattr(function, "__module__", None) or "")
    return getattr(place, getattr(function, "__name__", ""), function) is not function


class OnlySymbols(TorchFunctionMode):
    """Refuses the functions that make tensors from nothing: noise, constants."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", function)
        leaves = tree_leaves((args, kwargs or {}))
        if not any(issubclass(type(leaf), Symbol) for leaf in leaves):
            self._tracer.refuse(f"it calls {name} on no input")
        try:
            return function(*args, **(kwargs or {}))
        except Exception as error:
            # It might take a tensor or a number where it does not take a symbol.
            self._tracer.note(f"it calls {name}: {message_of(error)}")
            raise


def _surroundings() -> dict[str, object]:
    """What an operation depends on beside its arguments."""
    return {
        "autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        ],
        "what is kept for backward": torch._C._autograd._top_saved_tensors_default_hooks(True),
    }


def message_of(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
