"""Which tensors the kernels take, and who may see that their results are channels_last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx, nn
from typing_extensions import TypeIs

from vaekernels.backends import registry
from vaekernels.nn.unmodified import functions_are_observed
from vaekernels.ops._checks import derivatives_are_transformed

# What tells the layouts apart, or fails for one of them. Behind a permutation even .view() works
# on channels_last, and fails on contiguous. Noise is drawn in the order of the memory.
_SHOWS_LAYOUT = frozenset(
    (
        *("view", "view_as", "as_strided", "stride", "is_contiguous", "data_ptr", "storage"),
        *("untyped_storage", "storage_offset", "resize_", "set_", "numpy", "permute"),
        *("transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT", "dropout"),
        *("conv1d", "conv2d", "conv3d", "conv_transpose2d"),  # of PyTorch: slower on channels_last
        *("bernoulli", "bernoulli_", "normal_", "uniform_", "rand_like", "randn_like", "rrelu"),
    )
)


def shown(
    graph: fx.Graph, hides: Callable[[str], bool], absorbing: Collection[fx.Node] = ()
) -> set[fx.Node]:
    """The nodes whose layout is seen by something in ``graph``; its outputs count as not seen.

    Args:
        graph: of a module.
        hides: path of a child -> whether the child takes any layout.
        absorbing: nodes that read any layout, and whose results have one of their own.
    """
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        for user in node.users:
            if user.op == "output" or user in absorbing:
                continue
            if user in found or _sees_layout(user, hides):
                found.add(node)
    return found


def _sees_layout(node: fx.Node, hides: Callable[[str], bool]) -> bool:
    if node.op == "call_module":
        return not hides(str(node.target))
    if node.target is getattr:
        return str(node.args[1]) in _SHOWS_LAYOUT
    return bool({str(node.target), getattr(node.target, "__name__", "")} & _SHOWS_LAYOUT)


def is_plain(x: object) -> TypeIs[Tensor]:
    """Whether the kernels know such a tensor."""
    if not isinstance(x, Tensor) or type(x) not in (Tensor, nn.Parameter):
        return False
    if x.is_cpu:
        return x.dtype == torch.float32
    return x.is_cuda and _has_kernels("cuda", x.dtype)


@functools.cache
def _has_kernels(device: str, dtype: torch.dtype) -> bool:
    """Whether the convolutions have fused kernels there; the other ops then have them too."""
    return not registry.refusals("triton", "conv3x3", device, dtype)


def is_like(tensor: object, x: Tensor) -> TypeIs[Tensor]:
    """Whether the kernels take ``tensor`` beside ``x``."""
    return is_plain(tensor) and tensor.dtype == x.dtype and tensor.device == x.device


def takes(x: object) -> TypeIs[Tensor]:
    """Whether a call with ``x`` is for the kernels: one in which PyTorch computes in its dtype.

    They have no rules for forward-mode derivatives and the transforms of torch.func, and a
    TorchFunctionMode would not see the functions that it waits for.
    """
    return (
        is_plain(x)
        and not torch.is_autocast_enabled(x.device.type)
        and not derivatives_are_transformed()
        and not functions_are_observed()
    )


def laid_out_like(y: Tensor, like: Tensor, filters: nn.Module | None = None) -> Tensor:
    """``y`` in the layout of PyTorch's results: channels_last where ``like`` or a filter is.

    What is no result of a kernel is left as it is.

    Args:
        y: a result.
        like: what it was computed from.
        filters: the module with the filters.
    """
    if not _is_channels_last(y) or _is_channels_last(like) or not takes(y):
        return y
    made_so = filters is not None and _has_channels_last_filters(filters)
    return y if made_so else y.contiguous()


def _has_channels_last_filters(module: nn.Module) -> bool:
    """Whether ``module.to(memory_format=torch.channels_last)`` was called: the first tells."""
    first = next((p for p in module.parameters() if p.ndim == 4 and p.shape[2] > 1), None)
    return first is not None and _is_channels_last(first)


def _is_channels_last(x: Tensor) -> bool:
    last = torch.channels_last
    return x.ndim == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()
