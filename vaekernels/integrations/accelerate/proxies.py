"""Proxies, which stand for tensors while a forward is traced, and their tracer."""

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

# Modules that read the class of a proxy to handle proxies, not to handle tensors.
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
# Protocols by which Python, NumPy and PyTorch read the value of an object, or copy it.
_VALUES = (
    *("complex", "float", "index", "int", "len", "round", "trunc", "floor", "ceil", "divmod"),
    *("rdivmod", "contains", "reversed", "setitem", "delitem", "array", "array_ufunc"),
    *("array_function", "dlpack", "dlpack_device", "buffer", "copy", "deepcopy", "reduce"),
    *("reduce_ex", "getstate", "repr", "str", "format"),
)


class TensorProxy(fx.Proxy):
    """A proxy of a tensor that is not an instance of ``Tensor``.

    PyTorch's C++ reads the memory of any object whose ``__class__`` is a tensor's. So the class of
    a proxy is its own. A forward that reads it, and would take the wrong branch, is not traced.
    """

    tracer: Tracer

    def __init__(self, node: fx.Node, tracer: Tracer) -> None:
        self.__dict__.update(node=node, tracer=tracer)  # __setattr__ raises

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Read by ``isinstance``, also where C++ checks an argument.

        It does not raise, because C++ may read it where it cannot handle exceptions.
        """
        kind = type(self)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not caller.startswith(_MACHINERY):
            if caller in _AUTOGRAD_FUNCTION:
                self.tracer.note("it calls an autograd function")
            else:
                self.tracer.note(f"it reads the class of {self.node.name}")
        return kind

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Tensor, name):
            if not name.startswith("__"):
                self.tracer.note(f"it reads {self.node.name}.{name}")
            raise AttributeError(f"'Tensor' object has no attribute '{name}'")
        if callable(getattr(Tensor, name)):
            return _MethodProxy(self, name)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self.tracer.refuse(f"it sets .{name} of a tensor")

    def keys(self) -> Any:
        """A tensor has none."""
        self.tracer.refuse(f"it reads {self.node.name}.keys")


class _MethodProxy(TensorProxy):
    """A method of a proxied tensor, usually to be called."""

    def __init__(self, of: TensorProxy, name: str) -> None:
        self.__dict__.update(tracer=of.tracer, of=of, name=name)

    @functools.cached_property
    def node(self) -> fx.Node:  # type: ignore[override]
        """The method as a value that is not called."""
        of, name = self.__dict__["of"], self.__dict__["name"]
        return self.tracer.create_proxy("call_function", getattr, (of, name), {}).node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        of, name = self.__dict__["of"], self.__dict__["name"]
        return self.tracer.create_proxy("call_method", name, (of, *args), kwargs)


def _record_in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)

    def in_place(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return in_place


def _refuse_value(name: str) -> Callable[..., NoReturn]:
    def refused(self: TensorProxy, *args: Any, **kwargs: Any) -> NoReturn:
        self.tracer.refuse(f"it uses the value of {self.node.name} ({name})")

    return refused


for _name in _IN_PLACE:
    # torch.fx defines none of these, and Python would replace y += x by y = y + x.
    setattr(TensorProxy, f"__{_name}__", _record_in_place(_name))
for _name in _VALUES:
    setattr(TensorProxy, f"__{_name}__", _refuse_value(_name))


class Tracer(GraphAppendingTracer):
    """Records operations until one cannot be recorded.

    A forward may catch the exception that is raised then, so the first reason is kept.
    """

    def __init__(self, graph: fx.Graph, last: CodeType) -> None:
        super().__init__(graph)
        self._last = last
        self.refusal: str | None = None
        self.helpers: dict[CodeType, dict[str, Any]] = {}
        self._global_state = _global_state()

    def note(self, reason: str) -> None:
        """Keep why the forward cannot be traced; only the first reason is kept."""
        self.refusal = self.refusal or reason

    def refuse(self, reason: str) -> NoReturn:
        """End the tracing by raising an :class:`Untraceable`."""
        self.note(reason)
        raise Untraceable(self.refusal)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        if self.refusal is not None:
            raise Untraceable(self.refusal)
        if kind == "call_function" and _is_replaced(target):
            self.refuse(f"a function of PyTorch was replaced by {target.__name__}")
        # A compiled graph runs all of its nodes in the global state of the call.
        for name, now in _global_state().items():
            if now != self._global_state[name]:
                self.refuse(f"it changes {name} for a part of itself")
        self.helpers.update(running_code(sys._getframe(1), self._last))
        return super().create_node(kind, target, *args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return TensorProxy(node, self)

    def create_arg(self, a: Any) -> Any:
        # torch.fx would replace a named tuple or a subclass of dict by a plain one.
        if not issubclass(type(a), fx.Proxy) and type(a) not in _ARGUMENTS:
            self.refuse(f"it makes or passes on a {type(a).__name__}")
        return super().create_arg(a)

    def to_bool(self, obj: fx.Proxy) -> bool:
        self.refuse("symbolically traced variables cannot be used as inputs to control flow")

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        self.refuse(f"it iterates over {obj.node.name}")


def _is_replaced(function: Any) -> bool:
    """Whether ``function`` is a wrapper of one of PyTorch's, or its name now refers to another.

    PyTorch records the function of that name, and the code that torch.fx generates calls that.
    """
    if isinstance(function, FunctionType) and not is_from_torch(function):
        return True
    place = sys.modules.get(getattr(function, "__module__", None) or "")
    return getattr(place, getattr(function, "__name__", ""), function) is not function


class RequireProxyMode(TorchFunctionMode):
    """Refuses functions without a proxy among their arguments: noise, constants."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", function)
        leaves = tree_leaves((args, kwargs or {}))
        if not any(issubclass(type(leaf), TensorProxy) for leaf in leaves):
            self._tracer.refuse(f"it calls {name} on no input")
        try:
            return function(*args, **(kwargs or {}))
        except Exception as error:
            # It may accept a tensor or a number where it does not accept a proxy.
            self._tracer.note(f"it calls {name}: {message_of(error)}")
            raise


def _global_state() -> dict[str, object]:
    """The thread-local state that operations depend on, besides their arguments."""
    return {
        "autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        ],
        "what is kept for backward": torch._C._autograd._top_saved_tensors_default_hooks(True),
    }


def message_of(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
