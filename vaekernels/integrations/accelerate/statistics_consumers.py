"""Whose statistics the next layer would use: a convolution that a normalisation reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

from torch import fx, nn

from vaekernels.integrations.accelerate.trace_variants import Followed


def asking(followed: Mapping[nn.Module, Followed]) -> set[fx.Node]:
    """The last nodes of chains whose results are normalised next, also in other modules.

    Args:
        followed: the modules whose forwards are known.
    """
    readers = _Readers(followed)
    return {
        one.nodes[-1]
        for module, found in followed.items()
        for _, chains in found.traces.values()
        for one in chains
        if readers.normalise(module, one.nodes[-1])
    }


class _Readers:
    """Follows results to their readers, into modules that are called and out of them."""

    def __init__(self, followed: Mapping[nn.Module, Followed]) -> None:
        self._followed = followed
        self._normalisations = {
            one.nodes[0]
            for found in followed.values()
            for _, chains in found.traces.values()
            for one in chains
            if one.normalises
        }
        self._calls: dict[nn.Module, list[tuple[nn.Module, fx.Node]]] = defaultdict(list)
        for caller in followed:
            for node in chain.from_iterable(graph.nodes for graph in self._graphs(caller)):
                if node.op == "call_module":
                    called = caller.get_submodule(str(node.target))
                    self._calls[called].append((caller, node))
        self._known: dict[fx.Node, bool] = {}

    def normalise(self, module: nn.Module, node: fx.Node) -> bool:
        """Whether one reads the result of ``node``, of a graph of ``module``, to normalise it."""
        if node not in self._known:
            self._known[node] = False  # where a module is called behind itself
            self._known[node] = any(self._does(module, node, user) for user in node.users)
        return self._known[node]

    def _does(self, module: nn.Module, node: fx.Node, reader: fx.Node) -> bool:
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
        found = self._followed.get(module)
        for trace, _ in () if found is None else found.traces.values():
            yield trace.graph
