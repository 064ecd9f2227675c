"""Which functions in a graph are steps of a chain: those that layers stand for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from vaekernels.integrations.accelerate.guards import AttributeRead, Untraceable
from vaekernels.integrations.accelerate.module_patterns import ASYMMETRIC, IDLE
from vaekernels.nn.unmodified import TENSOR_METHODS


def function_step(node: fx.Node) -> tuple[str, float] | None:
    """The letter and the slope of what ``node`` does to its first argument; None for no step."""
    name = node.target if node.op == "call_method" else _NAMES.get(node.target)
    step = _STEPS.get(str(name))
    return None if step is None else step(node)


def methods_of(graph: fx.Graph) -> tuple[AttributeRead, ...]:
    """The methods of ``torch.Tensor`` that ``graph`` calls and steps may stand for.

    Raises:
        Untraceable: one was replaced.
    """
    names = {
        node.target if node.op == "call_method" else f"__{getattr(node.target, '__name__', '')}__"
        for node in graph.nodes
        if node.op == "call_method" or getattr(node.target, "__module__", "") == "_operator"
    }
    reads = tuple(
        AttributeRead(torch.Tensor, name, method)
        for name, method in TENSOR_METHODS.items()
        if name in names
    )
    for read in reads:
        if not read.is_as_it_was():
            raise Untraceable(f"torch.Tensor.{read.name} was replaced")
    return reads


def simplify(graph: fx.Graph) -> None:
    """Write ``x * sigmoid(x)`` as silu."""
    for node in list(graph.nodes):
        if node.target in (operator.mul, torch.mul) and len(node.args) == 2:
            left, right = node.args
            for x, gate in ((left, right), (right, left)):
                if _is_sigmoid(gate) and gate.args[0] is x and len(gate.users) == 1:
                    with graph.inserting_before(node):
                        node.replace_all_uses_with(graph.call_function(F.silu, (x,)))
                    graph.erase_node(node)
                    graph.erase_node(gate)
                    break


def _is_sigmoid(node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.target in (torch.sigmoid, F.sigmoid, "sigmoid")
        and len(node.args) == 1
    )


def is_in_place(node: fx.Node) -> bool:
    """Whether ``node`` writes into its argument."""
    name = str(getattr(node.target, "__name__", node.target))
    if node.kwargs.get("inplace") or node.kwargs.get("out") is not None:
        return True
    if node.op == "call_function" and getattr(operator, name, None) is node.target:
        return name == "setitem" or (name[0] == "i" and hasattr(operator, name[1:].rstrip("_")))
    return name.endswith("_") and not name.endswith("__")


_NAMES: dict[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    operator.truediv: "truediv",
    torch.add: "add",
    F.silu: "silu",
    F.relu: "relu",
    torch.relu: "relu",
    F.leaky_relu: "leaky_relu",
    F.interpolate: "interpolate",
    F.pad: "pad",
}


def _add(node: fx.Node) -> tuple[str, float] | None:
    plain = len(node.args) == 2 and isinstance(node.args[1], fx.Node) and not node.kwargs
    return ("a", 0.0) if plain else None


def _truediv(node: fx.Node) -> tuple[str, float] | None:
    return (IDLE, 0.0) if len(node.args) == 2 and node.args[1] in (1, 1.0) else None


def _silu(node: fx.Node) -> tuple[str, float] | None:
    return ("s", 0.0)


def _relu(node: fx.Node) -> tuple[str, float] | None:
    return ("r", 0.0)


def _leaky_relu(node: fx.Node) -> tuple[str, float] | None:
    slope = _argument(node, 1, "negative_slope", 0.01)
    return ("l", float(slope)) if isinstance(slope, (int, float)) and slope >= 0 else None


def _interpolate(node: fx.Node) -> tuple[str, float] | None:
    scale = _argument(node, 2, "scale_factor", None)
    doubles = scale in (2, (2, 2), [2, 2]) and _argument(node, 1, "size", None) is None
    return ("u", 0.0) if doubles and _argument(node, 3, "mode", "nearest") == "nearest" else None


def _pad(node: fx.Node) -> tuple[str, float] | None:
    sides = _argument(node, 1, "pad", ())
    zeros = _argument(node, 2, "mode", "constant") == "constant"
    zeros = zeros and _argument(node, 3, "value", None) in (None, 0)
    fits = isinstance(sides, (tuple, list)) and tuple(sides) == ASYMMETRIC
    return ("p", 0.0) if fits and zeros else None


_STEPS: dict[str, Callable[[fx.Node], tuple[str, float] | None]] = {
    "add": _add,
    "truediv": _truediv,
    "silu": _silu,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "interpolate": _interpolate,
    "pad": _pad,
}


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
