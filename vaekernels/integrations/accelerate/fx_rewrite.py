"""Finds the chains of layers in a traced graph that single ops compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from vaekernels.integrations.accelerate.chains import OPS, without_identities
from vaekernels.integrations.accelerate.patterns import (
    CONVOLUTIONS,
    FunctionStep,
    LayerKind,
    function_step,
    is_in_place,
    is_torch_layer,
    match_layer,
    simplify,
)


@dataclass(frozen=True)
class Chain:
    """Nodes of a graph that run as one op.

    Attributes:
        op: its name.
        kinds: of the steps, without those that do nothing.
        nodes: of the graph, in their order.
        steps: what each node calls: the path of a layer, or a function.
        addition: the node that adds the residual, and the position of the residual in its
            arguments; or None.
        projection: the 1x1 convolution of the residual, where one is added; or None.
    """

    op: str
    kinds: tuple[LayerKind, ...]
    nodes: tuple[fx.Node, ...]
    steps: tuple[str | FunctionStep, ...]
    addition: tuple[fx.Node, int] | None
    projection: fx.Node | None = None

    @property
    def normalises(self) -> bool:
        """Whether it begins with a normalisation that can use statistics."""
        return self.op == "conv3x3" and self.kinds[0] is LayerKind.GROUP_NORM

    @property
    def source(self) -> Any:
        """The input of the first step."""
        return self.nodes[0].args[0]

    @property
    def residual(self) -> Any:
        """The node that is added, or the input of the projection that is added; or None."""
        if self.projection is not None:
            return self.projection.args[0]
        if self.addition is None:
            return None
        node, position = self.addition
        return node.args[position]

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of its layers."""
        return tuple(step for step in self.steps if isinstance(step, str))


@dataclass(frozen=True)
class _Layers:
    """The children of a module, in training or evaluation."""

    module: nn.Module
    training: bool

    def kind(self, path: str) -> LayerKind:
        layer = self.module.get_submodule(path)
        if isinstance(layer, (nn.Dropout, nn.Dropout2d)):
            drops = self.training and layer.p > 0
            return LayerKind.OTHER if drops else LayerKind.IDENTITY
        return match_layer(layer)

    def is_pure(self, path: str) -> bool:
        layer = self.module.get_submodule(path)
        return is_torch_layer(layer) and not getattr(layer, "inplace", False)


@dataclass(frozen=True)
class _Found:
    node: fx.Node
    step: str | FunctionStep
    kind: LayerKind
    source: fx.Node
    residual: fx.Node | None = None

    @property
    def addition(self) -> tuple[fx.Node, int]:
        """The node, and the position of the residual in its arguments."""
        return self.node, 1 if self.node.args[0] is self.source else 0


def find_chains(graph: fx.Graph, module: nn.Module, training: bool) -> list[Chain]:
    """The chains of ``graph``, including those of one layer; each layer is in at most one.

    Args:
        graph: of ``module``; it is simplified in place.
        module: the owner of the layers.
        training: the mode of the graph, in which dropout is active.
    """
    simplify(graph)
    layers = _Layers(module, training)
    _drop_copies(graph, layers)
    found: list[Chain] = []
    taken: set[fx.Node] = set()
    convolutions_first = sorted(
        graph.nodes, key=lambda node: not _is_convolution(_step_of(node, layers))
    )
    for node in convolutions_first:
        if node in taken:
            continue
        chain = _chain_around(node, layers, taken)
        if chain is not None:
            found.append(chain)
            taken.update(chain.nodes)
    return found


def _drop_copies(graph: fx.Graph, layers: _Layers) -> None:
    """Remove ``x.contiguous()`` before layers that accept any memory format."""
    for node in list(graph.nodes):
        if node.op == "call_method" and node.target == "contiguous" and _is_needless(node, layers):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_needless(copy: fx.Node, layers: _Layers) -> bool:
    """Whether the readers of ``copy`` may read its input instead."""
    if len(copy.args) != 1 or copy.kwargs or not copy.users:
        return False
    for reader in copy.users:
        if reader.op != "call_module" or not layers.is_pure(str(reader.target)):
            return False
    # Nothing may change the input before the last reader.
    return all(_is_pure(node, layers) for node in _up_to(copy, max(copy.users)))


def _up_to(first: fx.Node, last: fx.Node) -> Iterator[fx.Node]:
    """The nodes from ``first`` to ``last``."""
    while first is not last:
        yield first
        first = first.next
    yield last


def _is_convolution(found: _Found | None) -> bool:
    return found is not None and found.kind in CONVOLUTIONS


def _chain_around(node: fx.Node, layers: _Layers, taken: set[fx.Node]) -> Chain | None:
    """The longest chain around ``node``, a convolution, or from it, a normalisation."""
    center = _step_of(node, layers)
    if center is None or not (_is_convolution(center) or center.kind is LayerKind.GROUP_NORM):
        return None
    line = [center]
    while (before := _step_of(line[0].source, layers)) is not None:
        if before.residual is not None or len(before.node.users) != 1 or before.node in taken:
            break
        line.insert(0, before)
    start = line.index(center)
    while (after := _only_reader(line[-1], layers)) is not None and after.node not in taken:
        line.append(after)
    for first in range(start + 1):
        for last in range(len(line), start, -1):
            run_of_steps = line[first:last]
            if _is_chain(run_of_steps, layers):
                return _as_chain(run_of_steps, layers)
    return None


def _only_reader(found: _Found, layers: _Layers) -> _Found | None:
    if len(found.node.users) != 1:
        return None
    (user,) = found.node.users
    reader = _step_of(user, layers)
    if reader is None:
        return None
    if reader.residual is not None:
        left, right = reader.source, reader.residual
        if left is right:
            return None
        if right is found.node and not is_in_place(user):
            reader = _Found(user, reader.step, reader.kind, right, left)
    return reader if reader.source is found.node else None


def _is_chain(line: list[_Found], layers: _Layers) -> bool:
    """Whether one op computes ``line``, and may run at the place of its last node."""
    if line[0].kind is LayerKind.IDENTITY or _kinds(line) not in OPS:
        return False
    nodes = {found.node for found in line}
    return all(
        between in nodes or _is_pure(between, layers)
        for between in _up_to(line[0].node, line[-1].node)
    )


def _as_chain(line: list[_Found], layers: _Layers) -> Chain:
    additions = [found for found in line if found.residual is not None]
    kinds = _kinds(line)
    return Chain(
        OPS[kinds],
        kinds,
        tuple(found.node for found in line),
        tuple(found.step for found in line),
        additions[0].addition if additions else None,
        _projection(additions[0], line, layers) if kinds[-1] is LayerKind.RESIDUAL else None,
    )


def _projection(addition: _Found, line: list[_Found], layers: _Layers) -> fx.Node | None:
    """The 1x1 convolution that computes the residual, if it may run later as well."""
    assert addition.residual is not None
    found = _step_of(addition.residual, layers)
    if found is None or found.kind is not LayerKind.CONV1X1 or len(found.node.users) != 1:
        return None
    nodes = {each.node for each in line}
    later = all(_is_pure(n, layers) for n in _up_to(found.node, line[-1].node) if n not in nodes)
    return found.node if later else None


def _kinds(line: list[_Found]) -> tuple[LayerKind, ...]:
    return without_identities([found.kind for found in line])


def _step_of(node: Any, layers: _Layers) -> _Found | None:
    """``node`` as a step on its first argument; None if it cannot be one."""
    if not isinstance(node, fx.Node) or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    if node.op == "call_module":
        alone = len(node.args) == 1 and not node.kwargs
        kind = layers.kind(str(node.target))
        fits = alone and kind is not LayerKind.OTHER
        return _Found(node, str(node.target), kind, source) if fits else None
    if node.op not in ("call_function", "call_method"):
        return None
    step = function_step(node)
    if step is None:
        return None
    residual = node.args[1] if step[0] is LayerKind.RESIDUAL else None
    return _Found(node, step, step[0], source, residual)  # type: ignore[arg-type]


def _is_pure(node: fx.Node, layers: _Layers) -> bool:
    """Whether ``node`` may run before the first layer of a chain instead of after it."""
    if node.op == "call_module":
        return layers.is_pure(str(node.target))
    return not is_in_place(node)
