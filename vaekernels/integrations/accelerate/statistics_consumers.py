"""Convolutions whose results a normalisation reads: only these emit statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

from torch import fx, nn

from vaekernels.integrations.accelerate.trace_variants import TracedModule


def nodes_that_emit_statistics(traced: Mapping[nn.Module, TracedModule]) -> set[fx.Node]:
    """The last nodes of chains whose results are normalised next, possibly in another module.

    Args:
        traced: the modules whose forwards were traced.
    """
    readers = _Readers(traced)
    return {
        one.nodes[-1]
        for module, found in traced.items()
        for _, chains in found.traces.values()
        for one in chains
        if readers.normalise(module, one.nodes[-1])
    }


class _Readers:
    """Finds the readers of results, also in modules that are called and in callers."""

    def __init__(self, traced: Mapping[nn.Module, TracedModule]) -> None:
        self._traced = traced
        self._normalisations = {
            one.nodes[0]
            for found in traced.values()
            for _, chains in found.traces.values()
            for one in chains
            if one.normalises
        }
        self._calls: dict[nn.Module, list[tuple[nn.Module, fx.Node]]] = defaultdict(list)
        for caller in traced:
            for node in chain.from_iterable(graph.nodes for graph in self._graphs(caller)):
                if node.op == "call_module":
                    called = caller.get_submodule(str(node.target))
                    self._calls[called].append((caller, node))
        self._known: dict[fx.Node, bool] = {}

    def normalise(self, module: nn.Module, node: fx.Node) -> bool:
        """Whether a normalisation reads the result of ``node``, in a graph of ``module``."""
        if node not in self._known:
            self._known[node] = False  # ends the recursion where a module calls itself
            self._known[node] = any(
                self._consumes_statistics(module, node, user) for user in node.users
            )
        return self._known[node]

    def _consumes_statistics(self, module: nn.Module, node: fx.Node, reader: fx.Node) -> bool:
        if reader.args[:1] != (node,):
            return False
        if reader.op == "output":
            return any(self.normalise(caller, call) for caller, call in self._calls[module])
        if reader in self._normalisations:
            return True
        if reader.op != "call_module":
            return False
        child = module.get_submodule(str(reader.target))
        inputs = [next(iter(graph.nodes)) for graph in self._graphs(child)]
        return any(self.normalise(child, x) for x in inputs)

    def _graphs(self, module: nn.Module) -> Iterator[fx.Graph]:
        found = self._traced.get(module)
        for trace, _ in () if found is None else found.traces.values():
            yield trace.graph
