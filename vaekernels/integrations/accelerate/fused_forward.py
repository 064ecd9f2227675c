"""The forwards of accelerated modules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from vaekernels.integrations.accelerate.chains import fused, run
from vaekernels.integrations.accelerate.fx_rewrite import Chain
from vaekernels.integrations.accelerate.memory_format import is_supported_input, to_layout_of
from vaekernels.integrations.accelerate.tracing import Guards
from vaekernels.nn.unmodified import all_are_observed, is_called_as_usual, is_observed
from vaekernels.runtime.nonfinite_policy import warn_if_slow


@dataclass(frozen=True)
class LayerForward:
    """The forward of a layer that one op computes."""

    precision: str | None
    any_layout: bool

    def __call__(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The result of the op; of ``own``, the layer's forward, where no op matches."""
        if len(args) == 1 and not kwargs:
            (x,) = args
            y = fused((module,), x, None, self.precision, None if self.any_layout else x)
            if y is not None:
                return y
        return own(module, *args, **kwargs)


@dataclass(frozen=True)
class Variant:
    """A compiled forward for one mode and one set of tensor arguments.

    Attributes:
        training: the mode.
        tensors: the arguments that are given; all others have their defaults.
        guards: under which it computes what the module's forward does.
        function: of the module and the tensors.
    """

    training: bool
    tensors: tuple[str, ...]
    guards: Guards
    function: Callable[..., Any]


@dataclass(frozen=True)
class ModuleForward:
    """A forward in which chains of layers run as ops.

    Attributes:
        defaults: parameter of the module's own forward -> its default.
        required: the parameters without default.
        variants: the compiled forwards; possibly none.
        any_layout: whether all callers accept results of any memory format.
        frees_children: whether the module's own forward does, so that its children return any.
    """

    defaults: Mapping[str, Any]
    required: tuple[str, ...]
    variants: tuple[Variant, ...]
    any_layout: bool
    frees_children: bool

    def __call__(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """As :meth:`inner`, with results in the memory format of PyTorch's."""
        match = self._matching_variant(module, args, kwargs)
        if match is None:
            for x in filter(torch.is_tensor, args[:1]):
                warn_if_slow("accelerate", x)
            result = own(module, *args, **kwargs)
            if not self.frees_children:
                return result
        else:
            variant, tensors = match
            result = variant.function(module, *tensors)
        if self.any_layout:
            return result
        like = next(filter(torch.is_tensor, (*args, *kwargs.values())), None)
        if like is None:
            return result
        if isinstance(result, Tensor):
            return to_layout_of(result, like, module)
        return tree_map_only(Tensor, lambda y: to_layout_of(y, like, module), result)

    def inner(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The result of a variant; of ``own``, the module's forward, where none applies."""
        match = self._matching_variant(module, args, kwargs)
        if match is None:
            return own(module, *args, **kwargs)
        variant, tensors = match
        return variant.function(module, *tensors)

    def _matching_variant(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[Variant, Sequence[Any]] | None:
        """The variant for a call, and its tensor arguments."""
        given = self._given(args, kwargs) if self.variants else None
        if given is None:
            return None
        for x in given.values():
            if not is_supported_input(x):
                return None
        names, training = tuple(given), module.training
        for variant in self.variants:
            if variant.training is training and variant.tensors == names:
                return (variant, tuple(given.values())) if variant.guards.hold(module) else None
        return None

    def _given(self, args: Any, kwargs: Any) -> dict[str, Any] | None:
        """The arguments that are not defaults, in the order of the parameters."""
        names = tuple(self.defaults)
        if len(args) == 1 and not kwargs and self.required in ((), names[:1]):
            return {names[0]: args[0]}
        if len(args) > len(names) or any(name not in names[len(args) :] for name in kwargs):
            return None
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        if any(name not in values for name in self.required):
            return None
        return {
            name: values[name]
            for name, default in self.defaults.items()
            if name in values and values[name] is not default
        }


def call(child: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call ``child`` from code that accepts results of any memory format."""
    inner: Any = getattr(type(child), "_vaekernels_inner", None)
    if (
        inner is not None
        and "forward" not in child.__dict__
        and child._compiled_call_impl is None
        and is_called_as_usual(child)
        and not (is_observed(child) or all_are_observed())
    ):
        return inner(child, *args, **kwargs)
    return child(*args, **kwargs)


def compile_graph(
    graph: fx.Graph,
    chains: list[Chain],
    observable: set[fx.Node],
    precision: str | None,
    emitting: Collection[fx.Node],
) -> Callable[..., Any]:
    """A function of a module and its tensors that runs ``graph`` with ``chains`` as ops.

    Args:
        graph: changed in place.
        chains: in the graph.
        observable: the nodes whose memory format is observed.
        precision: of the convolutions.
        emitting: the nodes that emit statistics.
    """
    like = next(node for node in graph.nodes if node.op == "placeholder")
    for chain in chains:
        last = chain.nodes[-1]
        with graph.inserting_before(last):
            steps = tuple(
                _child(graph, step) if isinstance(step, str) else step for step in chain.steps
            )
            projection = chain.projection
            if projection is not None:
                projection = _child(graph, str(projection.target))
            layout = like if last in observable else None
            tensors = (chain.source, chain.residual, projection)
            arguments = (steps, *tensors, precision, layout, last in emitting)
            last.replace_all_uses_with(graph.call_function(run, arguments))
        for node in reversed(chain.nodes):
            graph.erase_node(node)
        if chain.projection is not None:
            graph.erase_node(chain.projection)
    for node in list(graph.nodes):
        if node.op == "call_module" and node not in observable:
            with graph.inserting_before(node):
                child = _child(graph, str(node.target))
                result = graph.call_function(call, (child, *node.args), node.kwargs)
            node.replace_all_uses_with(result)
            graph.erase_node(node)
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(code.src, names)
    return names["forward"]


def _child(graph: fx.Graph, path: str) -> fx.Node:
    """A node that reads a child from ``_modules``, faster than by ``nn.Module.__getattr__``."""
    first, *names = path.split(".")
    children = graph.create_node("get_attr", "_modules")
    child = graph.call_function(operator.getitem, (children, first))
    for name in names:
        children = graph.call_function(getattr, (child, "_modules"))
        child = graph.call_function(operator.getitem, (children, name))
    return child
