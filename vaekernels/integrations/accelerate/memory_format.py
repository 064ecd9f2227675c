"""Which tensors the kernels support, and which code may observe that results are channels_last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx, nn
from typing_extensions import TypeIs

from vaekernels.backends import registry
from vaekernels.nn.unmodified import functions_are_observed
from vaekernels.ops._checks import derivatives_are_transformed

# Operations whose result depends on the memory format, or that fail for one. After a permutation
# even .view() works on channels_last and fails on contiguous. Noise is drawn in memory order.
_OBSERVES_LAYOUT = frozenset(
    (
        *("view", "view_as", "as_strided", "stride", "is_contiguous", "data_ptr", "storage"),
        *("untyped_storage", "storage_offset", "resize_", "set_", "numpy", "permute"),
        *("transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT", "dropout"),
        *("conv1d", "conv2d", "conv3d", "conv_transpose2d"),  # of PyTorch: slower on channels_last
        *("bernoulli", "bernoulli_", "normal_", "uniform_", "rand_like", "randn_like", "rrelu"),
    )
)


def observable_nodes(
    graph: fx.Graph, accepts_any_layout: Callable[[str], bool], absorbing: Collection[fx.Node] = ()
) -> set[fx.Node]:
    """The nodes whose memory format something in ``graph`` observes; its outputs do not count.

    Args:
        graph: of a module.
        accepts_any_layout: path of a child -> whether the child accepts any memory format.
        absorbing: nodes that read any memory format, and choose that of their results.
    """
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        for user in node.users:
            if user.op == "output" or user in absorbing:
                continue
            if user in found or _observes_layout(user, accepts_any_layout):
                found.add(node)
    return found


def _observes_layout(node: fx.Node, accepts_any_layout: Callable[[str], bool]) -> bool:
    if node.op == "call_module":
        return not accepts_any_layout(str(node.target))
    if node.target is getattr:
        return str(node.args[1]) in _OBSERVES_LAYOUT
    return bool({str(node.target), getattr(node.target, "__name__", "")} & _OBSERVES_LAYOUT)


def is_supported_tensor(x: object) -> TypeIs[Tensor]:
    """Whether ``x`` is a plain tensor of a device and dtype that have kernels."""
    if not isinstance(x, Tensor) or type(x) not in (Tensor, nn.Parameter):
        return False
    if x.is_cpu:
        return x.dtype == torch.float32
    return x.is_cuda and _has_kernels("cuda", x.dtype)


@functools.cache
def _has_kernels(device: str, dtype: torch.dtype) -> bool:
    """Whether the convolutions have fused kernels there; the other ops then have them too."""
    return not registry.refusals("triton", "conv3x3", device, dtype)


def is_compatible(tensor: object, x: Tensor) -> TypeIs[Tensor]:
    """Whether the kernels accept ``tensor`` beside ``x``: the same dtype and device."""
    return is_supported_tensor(tensor) and tensor.dtype == x.dtype and tensor.device == x.device


def is_supported_input(x: object) -> TypeIs[Tensor]:
    """Whether the kernels run a call with ``x``: one that PyTorch computes in the dtype of ``x``.

    They have no rules for forward-mode derivatives and the transforms of torch.func, and a
    TorchFunctionMode would not observe the functions that they replace.
    """
    return (
        is_supported_tensor(x)
        and not torch.is_autocast_enabled(x.device.type)
        and not derivatives_are_transformed()
        and not functions_are_observed()
    )


def to_layout_of(y: Tensor, like: Tensor, filters: nn.Module | None = None) -> Tensor:
    """``y`` in the memory format of PyTorch's result: channels_last if ``like`` or a filter is.

    Results that no kernel made are returned as they are.

    Args:
        y: a result.
        like: what it was computed from.
        filters: the module with the filters.
    """
    if not is_channels_last(y) or is_channels_last(like) or not is_supported_input(y):
        return y
    keeps = filters is not None and _has_channels_last_filters(filters)
    return y if keeps else y.contiguous()


def _has_channels_last_filters(module: nn.Module) -> bool:
    """Whether ``module.to(memory_format=torch.channels_last)`` was called, by its first filter."""
    first = next((p for p in module.parameters() if p.ndim == 4 and p.shape[2] > 1), None)
    return first is not None and is_channels_last(first)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is channels_last and not contiguous too."""
    last = torch.channels_last
    return x.ndim == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()
