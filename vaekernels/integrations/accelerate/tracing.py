"""Traces a module's forward with proxies in place of tensors, to find its chains of layers.

``torch.fx`` records the operations, but specialises silently on attributes, modes, random numbers,
``isinstance`` and in-place operations. Here the forward runs on a proxy of the module that records
each attribute it returns; these become guards, checked at each call. Children can be called, but
not inspected. Operations without a guard, such as drawing a random number, reading a list or
setting an attribute, end the tracing, and the module keeps its own forward.
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

from vaekernels.integrations.accelerate.guards import (
    ABSENT,
    Read,
    Untraceable,
    reads_of,
    reads_of_function,
)
from vaekernels.integrations.accelerate.patterns import methods_of
from vaekernels.integrations.accelerate.proxies import RequireProxyMode, Tracer, message_of
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
class Guards:
    """What a forward read while it was traced: the graph is valid while that is unchanged.

    Attributes:
        values: attribute of the module -> its value.
        methods: names of methods and children, that attributes of the module must not shadow.
        children: path -> the class of the child and its forward; None where there is no child.
        containers: path -> the names of the children of a list, dict or sequence.
        inlined: paths of the sequences that were traced into; they must have no hooks.
        reads: what the code reads besides the module.
    """

    values: Mapping[str, Any]
    methods: frozenset[str]
    children: Mapping[Path, _Class | None]
    containers: Mapping[Path, tuple[str, ...]]
    inlined: tuple[Path, ...]
    reads: tuple[Read, ...]

    def hold(self, module: nn.Module) -> bool:
        """Whether a trace of ``module`` would read the same."""
        attributes = module.__dict__
        for name in self.methods:
            if name in attributes:
                return False
        for name, value in self.values.items():
            now = getattr(module, name, ABSENT)
            if type(now) is not type(value) or now != value:
                return False
        for path, kind in self.children.items():
            child = module._modules.get(path[0]) if len(path) == 1 else _descend(module, path)
            if _class_of(child) != kind:
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
        return not (self.inlined and all_are_observed()) and self._reads_are_unchanged()

    def _reads_are_unchanged(self) -> bool:
        for read in self.reads:  # noqa: SIM110 (generators take longer)
            if not read.is_unchanged():
                return False
        return True

    # Dynamo evaluates it while it traces a call, and treats the result as a constant.
    _reads_are_unchanged._dynamo_marked_constant = True  # type: ignore[attr-defined]


# The class of a child and its forward.
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
    """One run of a forward: the graph, and what was read."""

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
        self._module_proxies: dict[str, nn.Module | None] = {}

    def guards(self) -> Guards:
        """What was read of the module."""
        return Guards(
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
            forward: a function of a module and ``arguments``.
            arguments: parameter -> whether it is a tensor; else it is None.
        """
        proxies = {
            name: self.tracer.create_proxy("placeholder", name, (), {}) if is_tensor else None
            for name, is_tensor in arguments.items()
        }
        result = forward(self._proxy_of_module(), **proxies)
        output = self.tracer.create_arg(result)
        self.tracer.create_node("output", "output", (output,), {})

    def _proxy_of_module(self) -> Any:
        if _container(self._module) is nn.Sequential:
            self.containers[""] = tuple(self._module._modules)
            items = self._module._modules.items()
            return nn.Sequential(OrderedDict((n, self._child(n, m)) for n, m in items))  # type: ignore[misc]
        kind = original_class(self._module)

        def read(module_proxy: nn.Module, name: str) -> Any:
            return self._read(module_proxy, name)

        members = {"__getattribute__": read, "__setattr__": self._refuse_to_set}
        return object.__new__(type(kind.__name__, (kind,), members))

    def _read(self, module_proxy: nn.Module, name: str) -> Any:
        module = self._module
        if name == "training":
            return self._training
        # Attributes of a class shadow children and tensors (``self.half`` is a method).
        shadowed = hasattr(original_class(module), name)
        if name in module._modules and not shadowed:
            self.methods.add(name)
            return self._child(name, module._modules[name])
        for tensors in (module._parameters, module._buffers):
            if name in tensors and not shadowed:
                if tensors[name] is None:
                    return self._assumed(name, None)
                return self.tracer.create_proxy("get_attr", name, (), {})
        if name in module.__dict__:
            return self._assumed(name, module.__dict__[name])
        try:
            value = object.__getattribute__(module_proxy, name)
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
        if path not in self._module_proxies:
            self._module_proxies[path] = self._proxy_of_child(path, child)
        return self._module_proxies[path]

    def _proxy_of_child(self, path: str, child: nn.Module | None) -> nn.Module | None:
        self.children[path] = _class_of(child)
        if child is None:
            return None
        container = _container(child)
        if container is None:
            return self._opaque_proxy(path, child)
        self.containers[path] = tuple(child._modules)
        items = {
            name: self._child(f"{path}.{name}", grandchild)
            for name, grandchild in child._modules.items()
        }
        if container is nn.Sequential:
            self.inlined.append(path)
            module_proxy: nn.Module = nn.Sequential(OrderedDict(items))  # type: ignore[arg-type]
        elif container is nn.ModuleList:
            module_proxy = nn.ModuleList(items.values())  # type: ignore[arg-type]
        else:
            module_proxy = nn.ModuleDict(items)  # type: ignore[arg-type]
        module_proxy.training = self._training
        return module_proxy

    def _opaque_proxy(self, path: str, child: nn.Module) -> nn.Module:
        """A proxy of a child that can be called, and nothing else."""

        def call(module_proxy: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return self.tracer.create_proxy("call_module", path, args, kwargs)

        def read(module_proxy: nn.Module, name: str) -> Any:
            if name.startswith("__"):
                return object.__getattribute__(module_proxy, name)
            self.tracer.refuse(f"it reads {path}.{name}")

        kind = original_class(child)
        setter = self._refuse_to_set
        members = {"__call__": call, "__getattribute__": read, "__setattr__": setter}
        return object.__new__(type(kind.__name__, (kind,), members))

    @property
    def _refuse_to_set(self) -> Callable[..., NoReturn]:
        def refuse(module_proxy: nn.Module, name: str, value: Any) -> NoReturn:
            self.tracer.refuse(f"it sets self.{name}")

        return refuse


def _container(module: nn.Module) -> type[nn.Module] | None:
    """The class of an unmodified container; None for other modules."""
    if "forward" in module.__dict__:
        return None
    kind = original_class(module)
    if isinstance(module, nn.Sequential) and runs_forward_of(module, nn.Sequential):
        return nn.Sequential
    return kind if kind in (nn.ModuleList, nn.ModuleDict) else None


@dataclass(frozen=True)
class Trace:
    """The graph of a forward, and the guards under which it is valid."""

    graph: fx.Graph
    guards: Guards


def trace(
    module: nn.Module,
    forward: Callable[..., Any],
    arguments: Mapping[str, bool],
    training: bool,
) -> Trace:
    """Trace ``forward`` of ``module``.

    Args:
        module: its attributes are read; it is not changed.
        forward: a function of a module and ``arguments``.
        arguments: parameter -> whether it is a tensor; else it is None.
        training: the mode.

    Raises:
        Untraceable: the forward does something that no guard covers.
    """
    kind = original_class(module)
    before = reads_of(forward, kind, {})
    runs = [_run(module, forward, arguments, training, grad) for grad in (True, False)]
    for read in before:
        if not read.is_unchanged():
            raise Untraceable(f"it sets {read.name}")
    reads = reads_of(forward, kind, runs[0].tracer.helpers | runs[1].tracer.helpers)
    graph = runs[0].graph
    if _source(graph) != _source(runs[1].graph):
        raise Untraceable("it does other things where gradients are recorded")
    first, second = (tracing.guards() for tracing in runs)
    children = {**second.children, **first.children}
    # The memory formats that children accept depend on their forwards.
    forwards = {id(forward): forward for _, forward in filter(None, children.values())}.values()
    merged = Guards(
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
    """Run the forward once; the arguments are those of :func:`trace`."""
    tracing = Tracing(module, training)
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(_SEED)  # an unlikely seed, so that seeding is detected too
        rng_state = _rng_state()
        with torch.set_grad_enabled(gradients), RequireProxyMode(tracing.tracer):
            tracing.call(forward, arguments)
        if _rng_state() != rng_state:
            raise Untraceable("it draws random numbers")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also exit(), in a branch that tensors do not take
        raise Untraceable(tracing.tracer.refusal or message_of(error)) from error
    finally:
        generator.set_state(state)
    return tracing


def _split(path: str) -> Path:
    return tuple(path.split(".")) if path else ()


def _rng_state() -> tuple[Any, ...]:
    """The state of the global generators of Python, NumPy and PyTorch."""
    state: Any = np.random.get_state()  # noqa: NPY002
    seed = torch.default_generator.get_state().numpy().tobytes()
    return random.getstate(), state[1].tobytes(), state[2:], seed


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src
