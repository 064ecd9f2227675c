"""Traces a module's forward in each mode, for each set of tensor arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from vaekernels.integrations.accelerate.diffusers_patches import forward_to_trace
from vaekernels.integrations.accelerate.fused_forward import Variant, compile_graph
from vaekernels.integrations.accelerate.fx_rewrite import Chain, find_chains
from vaekernels.integrations.accelerate.guards import Untraceable
from vaekernels.integrations.accelerate.memory_format import observable_nodes
from vaekernels.integrations.accelerate.tracing import Trace, trace
from vaekernels.nn.unmodified import original_class

_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class TracedModule:
    """The traces of a module's forward.

    Attributes:
        traces: (training, names of the tensor arguments) -> the trace and its chains.
        defaults: parameter -> default; None for one without.
        required: the parameters without default.
    """

    traces: Mapping[tuple[bool, tuple[str, ...]], tuple[Trace, list[Chain]]]
    defaults: Mapping[str, Any]
    required: tuple[str, ...]

    @property
    def chains(self) -> list[Chain]:
        """The chains in evaluation, of the set of arguments for which most is fused."""
        found = [chains for (training, _), (_, chains) in self.traces.items() if not training]
        return max(found, key=lambda chains: sum(len(chain.steps) - 1 for chain in chains))

    def variants(
        self,
        accepts_any_layout: Callable[[str], bool],
        precision: str | None,
        emitting: Collection[fx.Node],
    ) -> tuple[Variant, ...]:
        """The compiled forwards; the graphs are changed in place and cannot be used again.

        Args:
            accepts_any_layout: path of a child -> whether the child accepts any memory format.
            precision: of the convolutions.
            emitting: the nodes that emit statistics.
        """
        variants = []
        for (training, names), (found, chains) in self.traces.items():
            absorbing = {node for chain in chains for node in chain.nodes}
            observable = observable_nodes(found.graph, accepts_any_layout, absorbing)
            function = compile_graph(found.graph, chains, observable, precision, emitting)
            variants.append(Variant(training, names, found.guards, function))
        return tuple(variants)


def trace_module(module: nn.Module) -> TracedModule:
    """Trace the forward of ``module``.

    Two calls are traced, in training and in evaluation each: one with the first argument alone,
    and one with all required arguments.

    Raises:
        Untraceable: neither can be traced.
    """
    if "forward" in module.__dict__:
        raise Untraceable("it was replaced on the instance")
    if isinstance(module, torch.jit.ScriptModule):
        raise Untraceable("TorchScript runs it")
    parameters = list(inspect.signature(original_class(module).forward).parameters.values())[1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {p.name: p.default for p in parameters if p.kind not in variadic}
    if not named:
        raise Untraceable("it takes no tensor")
    first = next(iter(named))
    required = tuple(n for n, default in named.items() if default is _EMPTY)
    defaults = {n: None if default is _EMPTY else default for n, default in named.items()}
    forward = forward_to_trace(module)
    traces = {}
    reason = Untraceable("")
    for names in dict.fromkeys(((first,), tuple(dict.fromkeys((first, *required))))):
        arguments = {n: n in names for n in defaults if n in names or defaults[n] is None}
        try:
            for training in (False, True):
                found = trace(module, forward, arguments, training)
                traces[training, names] = found, find_chains(found.graph, module, training)
        except Untraceable as error:
            reason = error
    if not traces:
        raise reason
    return TracedModule(traces, defaults, required)
