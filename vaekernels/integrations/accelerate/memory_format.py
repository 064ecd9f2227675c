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


_PLAIN = (Tensor, nn.Parameter)


def is_supported_tensor(x: object) -> TypeIs[Tensor]:
    """Whether ``x`` is a plain tensor of a device and dtype that have kernels."""
    if type(x) not in _PLAIN:
        return False
    assert isinstance(x, Tensor)
    if x.is_cpu:
        return x.dtype == torch.float32
    return x.is_cuda and _has_kernels("cuda", x.dtype)


@functools.cache
def _has_kernels(device: str, dtype: torch.dtype) -> bool:
    """Whether the convolutions have fused kernels there; the other ops then have them too."""
    return not registry.refusals("triton", "conv3x3", device, dtype)


def is_compatible(tensor: object, x: Tensor) -> TypeIs[Tensor]:
    """Whether ``tensor`` is a plain tensor of the dtype and device of ``x``, a supported one."""
    return type(tensor) in _PLAIN and tensor.dtype is x.dtype and tensor.device == x.device  # type: ignore[attr-defined]


def is_supported_input(x: object) -> TypeIs[Tensor]:
    """Whether the kernels run a call with ``x``: one that PyTorch computes in the dtype of ``x``.

    They have no rules for forward-mode derivatives and the transforms of torch.func, and a
    TorchFunctionMode would not observe the functions that they replace.
    """
    return (
        is_supported_tensor(x)
        and not torch.is_autocast_enabled("cpu" if x.is_cpu else "cuda")
        and not derivatives_are_transformed()
        and not functions_are_observed()
    )


def match_memory_format(y: Tensor, like: Tensor, filters: Tensor | None = None) -> Tensor:
    """``y``, the result of a kernel: contiguous unless ``like`` or ``filters`` is channels_last."""
    if not is_channels_last(y) or is_channels_last(like):
        return y
    return y if filters is not None and is_channels_last(filters) else y.contiguous()


def to_layout_of(y: Tensor, like: Tensor, module: nn.Module | None = None) -> Tensor:
    """:func:`match_memory_format`, if ``y`` is the result of a kernel; else ``y``.

    Args:
        y: a result.
        like: what it was computed from.
        module: the owner of the filters.
    """
    if not is_channels_last(y) or is_channels_last(like) or not is_supported_input(y):
        return y
    # After module.to(memory_format=torch.channels_last), the first filter is.
    return match_memory_format(y, like, None if module is None else _first_filter(module))


def _first_filter(module: nn.Module) -> Tensor | None:
    """The first of ``module.parameters()`` that is a filter of more than one pixel."""
    for parameter in module._parameters.values():
        if parameter is not None and parameter.ndim == 4 and parameter.shape[2] > 1:
            return parameter
    for child in module._modules.values():
        found = None if child is None else _first_filter(child)
        if found is not None:
            return found
    return None


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is channels_last and not contiguous too."""
    last = torch.channels_last
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=last)
