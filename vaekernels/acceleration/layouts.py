"""Where a graph can tell channels_last from contiguous, and undoing what it must not see."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx, nn

# What tells the layouts apart, or fails for one of them. Behind a permutation even .view() works
# on channels_last, and fails on contiguous.
_SHOWS_LAYOUT = frozenset(
    (
        *("view", "view_as", "as_strided", "stride", "is_contiguous", "data_ptr", "storage"),
        *("untyped_storage", "storage_offset", "resize_", "set_", "numpy", "permute"),
        *("transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT"),
    )
)


def shown(
    graph: fx.Graph, hides: Callable[[str], bool], absorbing: Collection[fx.Node] = ()
) -> set[fx.Node]:
    """The nodes whose layout is seen by something in ``graph``; its outputs count as not seen.

    Args:
        graph: of a module.
        hides: path of a child -> whether the child takes any layout.
        absorbing: nodes whose result has a layout of its own choice.
    """
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        for user in node.users:
            if user.op == "output":
                continue
            if _sees_layout(user, hides) or (user in found and user not in absorbing):
                found.add(node)
    return found


def _sees_layout(node: fx.Node, hides: Callable[[str], bool]) -> bool:
    if node.op == "call_module":
        return not hides(str(node.target))
    if node.target is getattr:
        return str(node.args[1]) in _SHOWS_LAYOUT
    return bool({str(node.target), getattr(node.target, "__name__", "")} & _SHOWS_LAYOUT)


def laid_out_like(y: Tensor, *sources: Tensor | None) -> Tensor:
    """``y`` in the layout of PyTorch's results: channels_last only where one of ``sources`` is."""
    if not _is_channels_last(y):
        return y
    if any(source is not None and _is_channels_last(source) for source in sources):
        return y
    return y.contiguous()


def _is_channels_last(x: Tensor) -> bool:
    last = torch.channels_last
    return x.ndim == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()


def filters_of(module: nn.Module) -> Tensor | None:
    """The first filter in ``module``: channels_last where the model was made so."""
    return next((p for p in module.parameters() if p.ndim == 4), None)
