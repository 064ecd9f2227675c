"""Following a module's forward in each mode, for each set of tensors that it may be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from vaekernels.integrations.accelerate.diffusers_patches import forward_to_trace
from vaekernels.integrations.accelerate.fused_forward import Variant, compiled
from vaekernels.integrations.accelerate.fx_rewrite import Chain, find_chains
from vaekernels.integrations.accelerate.guards import Untraceable
from vaekernels.integrations.accelerate.memory_format import shown
from vaekernels.integrations.accelerate.tracing import Trace, trace
from vaekernels.nn.unmodified import original_class

_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Followed:
    """What tracing a module found.

    Attributes:
        traces: for each mode and set of tensors.
        defaults: parameter -> default; None for one that has none.
        required: the parameters that have none.
    """

    traces: Mapping[tuple[bool, tuple[str, ...]], tuple[Trace, list[Chain]]]
    defaults: Mapping[str, Any]
    required: tuple[str, ...]

    @property
    def chains(self) -> list[Chain]:
        """Those of evaluation; of the call in which most is fused."""
        found = [chains for (training, _), (_, chains) in self.traces.items() if not training]
        return max(found, key=lambda chains: sum(len(chain.steps) - 1 for chain in chains))

    def variants(
        self, hides: Callable[[str], bool], precision: str | None, asking: Collection[fx.Node]
    ) -> tuple[Variant, ...]:
        """What the module runs from now on; the graphs are used up.

        Args:
            hides: path of a child -> whether the child takes any layout.
            precision: of the convolutions.
            asking: the nodes whose statistics would be used.
        """
        variants = []
        for (training, names), (found, chains) in self.traces.items():
            seen = shown(found.graph, hides, {node for chain in chains for node in chain.nodes})
            function = compiled(found.graph, chains, seen, precision, asking)
            variants.append(Variant(training, names, found.assumptions, function))
        return tuple(variants)


def follow(module: nn.Module) -> Followed:
    """Trace the forward of ``module``.

    A call with the first argument alone is traced, and, where more are required, one with all of
    those. Either in both modes.

    Raises:
        Untraceable: no such call can be followed.
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
    return Followed(traces, defaults, required)
