"""What an accelerated module runs in place of its forward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map_only

from vaekernels.integrations.accelerate.chains import fused, run
from vaekernels.integrations.accelerate.fx_rewrite import Chain
from vaekernels.integrations.accelerate.memory_format import laid_out_like, takes
from vaekernels.integrations.accelerate.tracing import Assumptions
from vaekernels.nn.unmodified import all_are_observed, is_called_as_usual, is_observed
from vaekernels.runtime.nonfinite_policy import warn_if_slow


@dataclass(frozen=True)
class LayerForward:
    """A layer with an op of its own."""

    precision: str | None
    any_layout: bool

    def __call__(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The op's result, or that of the layer's ``own`` forward where the op does not fit."""
        if len(args) == 1 and not kwargs:
            (x,) = args
            y = fused((module,), x, None, self.precision, None if self.any_layout else x)
            if y is not None:
                return y
        return own(module, *args, **kwargs)


@dataclass(frozen=True)
class Variant:
    """A forward for one mode and one set of tensors.

    Attributes:
        training: the mode.
        tensors: the parameters that are given; all others have their defaults.
        assumptions: when it is right.
        function: of the module and the tensors.
    """

    training: bool
    tensors: tuple[str, ...]
    assumptions: Assumptions
    function: Callable[..., Any]


@dataclass(frozen=True)
class ModuleForward:
    """A module in whose forward chains of layers run as ops.

    Attributes:
        defaults: parameter of the module's own forward -> its default.
        required: the parameters that have none.
        variants: the forwards; there may be none.
        any_layout: all callers take results of any layout.
        frees_children: so does the module's own forward, and its children count on it.
    """

    defaults: Mapping[str, Any]
    required: tuple[str, ...]
    variants: tuple[Variant, ...]
    any_layout: bool
    frees_children: bool

    def __call__(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """As :meth:`inner`, with results in the layout that PyTorch's would have."""
        fitting = self._fitting(module, args, kwargs)
        if fitting is None:
            for x in filter(torch.is_tensor, args[:1]):
                warn_if_slow("accelerate", x)
            result = own(module, *args, **kwargs)
            if not self.frees_children:
                return result
        else:
            variant, tensors = fitting
            result = variant.function(module, *tensors)
        like = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        if self.any_layout or like is None:
            return result
        if isinstance(result, Tensor):
            return laid_out_like(result, like, module)
        return tree_map_only(Tensor, lambda y: laid_out_like(y, like, module), result)

    def inner(self, module: nn.Module, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The variant's result, or that of the module's ``own`` forward where none fits."""
        fitting = self._fitting(module, args, kwargs)
        if fitting is None:
            return own(module, *args, **kwargs)
        variant, tensors = fitting
        return variant.function(module, *tensors)

    def _fitting(
        self, module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[Variant, Sequence[Any]] | None:
        """The variant for a call, and the tensors that it takes."""
        given = self._given(args, kwargs)
        if given is None or not all(map(takes, given.values())):
            return None
        names = tuple(given)
        for variant in self.variants:
            meant = variant.training is module.training and variant.tensors == names
            if meant and variant.assumptions.hold(module):
                return variant, tuple(given.values())
        return None

    def _given(self, args: Any, kwargs: Any) -> dict[str, Any] | None:
        """The arguments that are not defaults, in the order of the parameters."""
        names = tuple(self.defaults)
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
    """Call ``child`` from a place that takes results of any layout."""
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


def compiled(
    graph: fx.Graph,
    chains: list[Chain],
    shown: set[fx.Node],
    precision: str | None,
    asking: Collection[fx.Node],
) -> Callable[..., Any]:
    """A function of a module and its tensors that runs ``graph`` with ``chains`` as ops.

    Args:
        graph: it is changed.
        chains: of it.
        shown: the nodes whose layout is seen.
        precision: of the convolutions.
        asking: the nodes whose statistics would be used.
    """
    like = next(node for node in graph.nodes if node.op == "placeholder")
    for chain in chains:
        last = chain.nodes[-1]
        with graph.inserting_before(last):
            steps = tuple(
                graph.create_node("get_attr", step) if isinstance(step, str) else step
                for step in chain.steps
            )
            projection = chain.projection
            if projection is not None:
                projection = graph.create_node("get_attr", projection.target)
            layout = like if last in shown else None
            tensors = (chain.source, chain.residual, projection)
            arguments = (steps, *tensors, precision, layout, last in asking)
            last.replace_all_uses_with(graph.call_function(run, arguments))
        for node in reversed(chain.nodes):
            graph.erase_node(node)
        if chain.projection is not None:
            graph.erase_node(chain.projection)
    for node in list(graph.nodes):
        if node.op == "call_module" and node not in shown:
            with graph.inserting_before(node):
                child = graph.create_node("get_attr", node.target)
                result = graph.call_function(call, (child, *node.args), node.kwargs)
            node.replace_all_uses_with(result)
            graph.erase_node(node)
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(code.src, names)
    return names["forward"]
