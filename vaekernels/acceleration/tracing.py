"""Following a module's forward with symbols instead of tensors, to see its chains of layers.

``torch.fx`` records the operations; what is ours is that nothing goes unseen. The forward runs on
a stand-in of the module, which answers from the module but counts what it was asked: each answer
becomes an assumption, checked before a call uses what was found here. Children can be called, and
not looked into. What cannot be an assumption, like drawing a random number, reading a list or
setting an attribute, ends the tracing, and the module keeps its own forward.
"""

from __future__ import annotations

import operator
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import GraphAppendingTracer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vaekernels.plain_layers import all_are_observed, is_observed, original_class, runs_forward_of

ABSENT = object()
_MACHINERY = ("torch.", __name__)
_SIMPLE = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, type)
_ARGUMENTS = (
    *(fx.Node, tuple, list, dict, slice, range, bool, int, float, complex, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, type(Ellipsis)),
)
_FUNCTIONS = (FunctionType, BuiltinFunctionType)
_IN_PLACE = (
    *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
    *("iand", "ior", "ixor", "ilshift", "irshift"),
)

Path = tuple[str, ...]


class Untraceable(Exception):
    """Why a forward cannot be followed."""


@dataclass(frozen=True)
class Assumptions:
    """What a forward read of its module while it was traced.

    Attributes:
        values: attribute -> its value.
        children: path -> the class of the child, None where there is none.
        containers: path -> the names in a list, dict or sequence of modules.
        inlined: paths of the sequences that were entered; hooks on them want them called.
    """

    values: Mapping[str, Any]
    children: Mapping[Path, type[nn.Module] | None]
    containers: Mapping[Path, tuple[str, ...]]
    inlined: tuple[Path, ...]

    def hold(self, module: nn.Module) -> bool:
        """Whether ``module`` would still answer the same."""
        for name, value in self.values.items():
            now = getattr(module, name, ABSENT)
            if type(now) is not type(value) or now != value:
                return False
        for path, kind in self.children.items():
            child = _descend(module, path)
            if (None if child is None else original_class(child)) is not kind:
                return False
        for path, names in self.containers.items():
            container = _descend(module, path)
            if container is None or tuple(container._modules) != names:
                return False
        for path in self.inlined:
            container = _descend(module, path)
            if container is None or is_observed(container) or "forward" in container.__dict__:
                return False
        return not (self.inlined and all_are_observed())


def _descend(module: nn.Module, path: Path) -> nn.Module | None:
    child: nn.Module | None = module
    for name in path:
        child = None if child is None else child._modules.get(name)
    return child


class _Symbol(fx.Proxy):
    """Stands for what a tensor's place holds."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Asked by ``isinstance``, of inputs and parameters only: those are tensors for sure.

        Not for PyTorch itself, whose C++ would read the memory of a tensor.
        """
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if asking == "torch.autograd.function":
            raise Untraceable("it calls an autograd function")
        if asking.startswith(_MACHINERY):
            return _Symbol
        if self.node.op not in ("placeholder", "get_attr"):
            raise Untraceable(f"it asks for the class of {self.node.name}")
        return Tensor

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Tensor, name):
            raise AttributeError(f"'Tensor' object has no attribute '{name}'")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise Untraceable(f"it sets .{name} of a tensor")
        super().__setattr__(name, value)


def _recorded_in_place(name: str) -> Callable[[fx.Proxy, Any], Any]:
    function = getattr(operator, name)

    def in_place(self: fx.Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return in_place


for _name in _IN_PLACE:
    # torch.fx has none of these, and Python would take y = y + x for y += x.
    setattr(_Symbol, f"__{_name}__", _recorded_in_place(_name))


class _Tracer(GraphAppendingTracer):
    def __init__(self, graph: fx.Graph) -> None:
        super().__init__(graph)
        self._surroundings = _surroundings()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        # A graph has one for all of its nodes: those of the call.
        for name, now in _surroundings().items():
            if now != self._surroundings[name]:
                raise Untraceable(f"it changes {name} for a part of itself")
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)

    def create_arg(self, a: Any) -> Any:
        # torch.fx would take a named tuple or a subclass of dict for a plain one.
        if not issubclass(type(a), fx.Proxy) and type(a) not in _ARGUMENTS:
            raise Untraceable(f"it makes or passes on a {type(a).__name__}")
        return super().create_arg(a)


class _OnlySymbols(TorchFunctionMode):
    """Refuses the functions that make tensors from nothing: noise, constants."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        if not any(type(leaf) is _Symbol for leaf in leaves):
            raise Untraceable(f"it calls {getattr(function, '__name__', function)} on no input")
        return function(*args, **(kwargs or {}))


class Tracing:
    """One run of a forward, with what it read and the graph it made."""

    def __init__(self, module: nn.Module, training: bool) -> None:
        self.graph = fx.Graph()
        self.tracer = _Tracer(self.graph)
        self.values: dict[str, Any] = {}
        self.children: dict[str, type[nn.Module] | None] = {}
        self.containers: dict[str, tuple[str, ...]] = {}
        self.inlined: list[str] = []
        self._module = module
        self._training = training
        self._stand_ins: dict[str, nn.Module | None] = {}

    def assumptions(self) -> Assumptions:
        """What was read."""
        return Assumptions(
            self.values,
            {_split(path): kind for path, kind in self.children.items()},
            {_split(path): names for path, names in self.containers.items()},
            tuple(map(_split, self.inlined)),
        )

    def call(self, forward: Callable[..., Any], arguments: Mapping[str, bool]) -> None:
        """Run ``forward``.

        Args:
            forward: takes a module and ``arguments``.
            arguments: parameter -> whether it is a tensor, else None.
        """
        symbols = {
            name: self.tracer.create_proxy("placeholder", name, (), {}) if is_tensor else None
            for name, is_tensor in arguments.items()
        }
        result = forward(self._stand_in_of_module(), **symbols)
        output = self.tracer.create_arg(result)
        self.tracer.create_node("output", "output", (output,), {})

    def _stand_in_of_module(self) -> Any:
        if _container(self._module) is nn.Sequential:
            self.containers[""] = tuple(self._module._modules)
            items = self._module._modules.items()
            return nn.Sequential(OrderedDict((n, self._child(n, m)) for n, m in items))  # type: ignore[misc]
        kind = original_class(self._module)

        def read(stand_in: nn.Module, name: str) -> Any:
            return self._read(stand_in, name)

        stand_in = type(kind.__name__, (kind,), {"__getattribute__": read, "__setattr__": _refuse})
        return object.__new__(stand_in)

    def _read(self, stand_in: nn.Module, name: str) -> Any:
        module = self._module
        if name == "training":
            return self._training
        if name in module._modules:
            return self._child(name, module._modules[name])
        for tensors in (module._parameters, module._buffers):
            if name in tensors:
                if tensors[name] is None:
                    return self._assumed(name, None)
                return self.tracer.create_proxy("get_attr", name, (), {})
        if name in module.__dict__:
            return self._assumed(name, module.__dict__[name])
        try:
            value = object.__getattribute__(stand_in, name)
        except AttributeError:
            self.values[name] = ABSENT
            raise
        return self._assumed(name, value) if isinstance(value, _SIMPLE) else value

    def _assumed(self, name: str, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        if name.startswith("__"):
            return value
        if not all(isinstance(part, (*_SIMPLE, *_FUNCTIONS)) for part in parts):
            raise Untraceable(f"it reads self.{name}, whose changes would go unseen")
        self.values[name] = value
        return value

    def _child(self, path: str, child: nn.Module | None) -> nn.Module | None:
        if path not in self._stand_ins:
            self._stand_ins[path] = self._stand_in_of_child(path, child)
        return self._stand_ins[path]

    def _stand_in_of_child(self, path: str, child: nn.Module | None) -> nn.Module | None:
        self.children[path] = None if child is None else original_class(child)
        if child is None:
            return None
        container = _container(child)
        if container is None:
            return self._closed(path, child)
        self.containers[path] = tuple(child._modules)
        items = {
            name: self._child(f"{path}.{name}", grandchild)
            for name, grandchild in child._modules.items()
        }
        if container is nn.Sequential:
            self.inlined.append(path)
            stand_in: nn.Module = nn.Sequential(OrderedDict(items))  # type: ignore[arg-type]
        elif container is nn.ModuleList:
            stand_in = nn.ModuleList(items.values())  # type: ignore[arg-type]
        else:
            stand_in = nn.ModuleDict(items)  # type: ignore[arg-type]
        stand_in.training = self._training
        return stand_in

    def _closed(self, path: str, child: nn.Module) -> nn.Module:
        """A child that can be called, and nothing else."""

        def call(stand_in: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.tracer.create_proxy("call_module", path, args, kwargs)

        def read(stand_in: nn.Module, name: str) -> Any:
            if name.startswith("__"):
                return object.__getattribute__(stand_in, name)
            raise Untraceable(f"it reads {path}.{name}")

        kind = original_class(child)
        members = {"__call__": call, "__getattribute__": read, "__setattr__": _refuse}
        return object.__new__(type(kind.__name__, (kind,), members))


def _refuse(stand_in: nn.Module, name: str, value: Any) -> None:
    raise Untraceable(f"it sets self.{name}")


def _container(module: nn.Module) -> type[nn.Module] | None:
    """The kind of container that ``module`` is, if it is no more than that."""
    if "forward" in module.__dict__:
        return None
    kind = original_class(module)
    if isinstance(module, nn.Sequential) and runs_forward_of(module, nn.Sequential):
        return nn.Sequential
    return kind if kind in (nn.ModuleList, nn.ModuleDict) else None


@dataclass(frozen=True)
class Trace:
    """What came of tracing: the graph, and when it is the forward."""

    graph: fx.Graph
    assumptions: Assumptions


def trace(
    module: nn.Module,
    forward: Callable[..., Any],
    arguments: Mapping[str, bool],
    training: bool,
) -> Trace:
    """Follow ``forward`` of ``module``.

    Args:
        module: whose attributes it reads; nothing of it changes.
        forward: a function of a module and ``arguments``.
        arguments: parameter -> whether it is a tensor, else None.
        training: the mode.

    Raises:
        Untraceable: it does what no assumption covers.
    """
    dice = _dice()
    runs = []
    for gradients in (True, False):
        tracing = Tracing(module, training)
        try:
            with torch.set_grad_enabled(gradients), _OnlySymbols():
                tracing.call(forward, arguments)
        except Exception as error:
            text = str(error).strip() or type(error).__name__
            raise Untraceable(text.splitlines()[0]) from error
        runs.append(tracing)
    if _dice() != dice:
        raise Untraceable("it draws random numbers")
    if _source(runs[0].graph) != _source(runs[1].graph):
        raise Untraceable("it does other things where gradients are recorded")
    first, second = (tracing.assumptions() for tracing in runs)
    merged = Assumptions(
        {**second.values, **first.values},
        {**second.children, **first.children},
        {**second.containers, **first.containers},
        tuple(dict.fromkeys([*first.inlined, *second.inlined])),
    )
    return Trace(runs[0].graph, merged)


def _surroundings() -> dict[str, object]:
    """What an operation depends on beside its arguments."""
    return {
        "autocast": [
            (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        ],
        "what is kept for backward": torch._C._autograd._top_saved_tensors_default_hooks(True),
    }


def _split(path: str) -> Path:
    return tuple(path.split(".")) if path else ()


def _dice() -> tuple[Any, ...]:
    # The global generators of Python and NumPy; PyTorch's is refused as it is called.
    state: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), state[1].tobytes(), state[2:]


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src
