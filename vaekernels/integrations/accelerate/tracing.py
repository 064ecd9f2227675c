"""Following a module's forward with symbols instead of tensors, to see its chains of layers.

``torch.fx`` records the operations; what is ours is that nothing goes unseen. The forward runs on
a stand-in of the module, which answers from the module but counts what it was asked: each answer
becomes an assumption, checked before a call uses what was found here. Children can be called, and
not looked into. What cannot be an assumption, like drawing a random number, reading a list or
setting an attribute, ends the tracing, and the module keeps its own forward.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import BuiltinFunctionType, FunctionType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import fx, nn

from vaekernels.integrations.accelerate.function_patterns import methods_of
from vaekernels.integrations.accelerate.guards import (
    ABSENT,
    Read,
    Untraceable,
    reads_of,
    reads_of_function,
)
from vaekernels.integrations.accelerate.symbols import OnlySymbols, Tracer, message_of
from vaekernels.nn.unmodified import (
    all_are_observed,
    forward_of_class,
    is_observed,
    original_class,
    runs_forward_of,
)

_SIMPLE = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, type)
_FUNCTIONS = (FunctionType, BuiltinFunctionType)
_SEED = 0x5EED5EED

Path = tuple[str, ...]


@dataclass(frozen=True)
class Assumptions:
    """What a forward read of its module while it was traced.

    Attributes:
        values: attribute -> its value.
        methods: names that were found on its class, and would be found on the module first.
        children: path -> the class of the child and its forward, None where there is none.
        containers: path -> the names in a list, dict or sequence of modules.
        inlined: paths of the sequences that were entered; hooks on them want them called.
        reads: what its code reads beside the module.
    """

    values: Mapping[str, Any]
    methods: frozenset[str]
    children: Mapping[Path, _Class | None]
    containers: Mapping[Path, tuple[str, ...]]
    inlined: tuple[Path, ...]
    reads: tuple[Read, ...]

    def hold(self, module: nn.Module) -> bool:
        """Whether ``module`` would still answer the same."""
        for name, value in self.values.items():
            now = getattr(module, name, ABSENT)
            if type(now) is not type(value) or now != value:
                return False
        if not self.methods.isdisjoint(module.__dict__):
            return False
        for path, kind in self.children.items():
            if _class_of(_descend(module, path)) != kind:
                return False
        for path, names in self.containers.items():
            container = _descend(module, path)
            if container is None or tuple(container._modules) != names:
                return False
        for path in self.inlined:
            container = _descend(module, path)
            if container is None or is_observed(container):
                return False
            if not runs_forward_of(container, nn.Sequential):
                return False
        return not (self.inlined and all_are_observed()) and self._reads_are_as_they_were()

    def _reads_are_as_they_were(self) -> bool:
        return all(read.is_as_it_was() for read in self.reads)

    # Dynamo runs it where it traces a call, and keeps the answer.
    _reads_are_as_they_were._dynamo_marked_constant = True  # type: ignore[attr-defined]


# What is asked of a child: its class, and the forward that it has of it.
_Class = tuple[type[nn.Module], Any]


def _class_of(child: nn.Module | None) -> _Class | None:
    if child is None:
        return None
    kind = original_class(child)
    return kind, child.__dict__.get("forward", forward_of_class(kind))


def _descend(module: nn.Module, path: Path) -> nn.Module | None:
    child: nn.Module | None = module
    for name in path:
        child = None if child is None else child._modules.get(name)
    return child


class Tracing:
    """One run of a forward, with what it read and the graph it made."""

    def __init__(self, module: nn.Module, training: bool) -> None:
        self.graph = fx.Graph()
        self.tracer = Tracer(self.graph, Tracing.call.__code__)
        self.values: dict[str, Any] = {}
        self.methods: set[str] = set()
        self.children: dict[str, _Class | None] = {}
        self.containers: dict[str, tuple[str, ...]] = {}
        self.inlined: list[str] = []
        self._module = module
        self._training = training
        self._stand_ins: dict[str, nn.Module | None] = {}

    def assumptions(self) -> Assumptions:
        """What was read of the module."""
        return Assumptions(
            self.values,
            frozenset(self.methods),
            {_split(path): kind for path, kind in self.children.items()},
            {_split(path): names for path, names in self.containers.items()},
            tuple(map(_split, self.inlined)),
            (),
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

        members = {"__getattribute__": read, "__setattr__": self._refuse_to_set}
        return object.__new__(type(kind.__name__, (kind,), members))

    def _read(self, stand_in: nn.Module, name: str) -> Any:
        module = self._module
        if name == "training":
            return self._training
        # What a class has hides a child or tensor of that name (``self.half`` is a method).
        hidden = hasattr(original_class(module), name)
        if name in module._modules and not hidden:
            return self._child(name, module._modules[name])
        for tensors in (module._parameters, module._buffers):
            if name in tensors and not hidden:
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
        if isinstance(value, _SIMPLE):
            return self._assumed(name, value)
        self.methods.add(name)
        return value

    def _assumed(self, name: str, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        if name.startswith("__"):
            return value
        if not all(isinstance(part, (*_SIMPLE, *_FUNCTIONS)) for part in parts):
            self.tracer.refuse(f"it reads self.{name}, whose changes would go unseen")
        self.values[name] = value
        return value

    def _child(self, path: str, child: nn.Module | None) -> nn.Module | None:
        if path not in self._stand_ins:
            self._stand_ins[path] = self._stand_in_of_child(path, child)
        return self._stand_ins[path]

    def _stand_in_of_child(self, path: str, child: nn.Module | None) -> nn.Module | None:
        self.children[path] = _class_of(child)
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
            self.tracer.refuse(f"it reads {path}.{name}")

        kind = original_class(child)
        setter = self._refuse_to_set
        members = {"__call__": call, "__getattribute__": read, "__setattr__": setter}
        return object.__new__(type(kind.__name__, (kind,), members))

    @property
    def _refuse_to_set(self) -> Callable[..., NoReturn]:
        def refuse(stand_in: nn.Module, name: str, value: Any) -> NoReturn:
            self.tracer.refuse(f"it sets self.{name}")

        return refuse


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
    kind = original_class(module)
    before = reads_of(forward, kind, {})
    runs = [_run(module, forward, arguments, training, grad) for grad in (True, False)]
    for read in before:
        if not read.is_as_it_was():
            raise Untraceable(f"it sets {read.name}")
    reads = reads_of(forward, kind, runs[0].tracer.helpers | runs[1].tracer.helpers)
    graph = runs[0].graph
    if _source(graph) != _source(runs[1].graph):
        raise Untraceable("it does other things where gradients are recorded")
    first, second = (tracing.assumptions() for tracing in runs)
    children = {**second.children, **first.children}
    # What is assumed of children, such as the layouts that they take, is of their forwards.
    forwards = {id(forward): forward for _, forward in filter(None, children.values())}.values()
    merged = Assumptions(
        {**second.values, **first.values},
        first.methods | second.methods,
        children,
        {**second.containers, **first.containers},
        tuple(dict.fromkeys([*first.inlined, *second.inlined])),
        (*reads, *chain.from_iterable(map(reads_of_function, forwards)), *methods_of(graph)),
    )
    return Trace(graph, merged)


def _run(
    module: nn.Module,
    forward: Callable[..., Any],
    arguments: Mapping[str, bool],
    training: bool,
    gradients: bool,
) -> Tracing:
    """One run of the forward, as :func:`trace` has it."""
    tracing = Tracing(module, training)
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(_SEED)  # of nobody else, so that seeding is seen too
        dice = _dice()
        with torch.set_grad_enabled(gradients), OnlySymbols(tracing.tracer):
            tracing.call(forward, arguments)
        if _dice() != dice:
            raise Untraceable("it draws random numbers")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # exit() of a branch that no tensor takes
        raise Untraceable(tracing.tracer.refusal or message_of(error)) from error
    finally:
        generator.set_state(state)
    return tracing


def _split(path: str) -> Path:
    return tuple(path.split(".")) if path else ()


def _dice() -> tuple[Any, ...]:
    # The global generators of Python, NumPy and PyTorch.
    state: Any = np.random.get_state()  # noqa: NPY002
    seed = torch.default_generator.get_state().numpy().tobytes()
    return random.getstate(), state[1].tobytes(), state[2:], seed


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src
