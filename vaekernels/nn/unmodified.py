"""Checks that a layer has PyTorch's own forward, so that an op may replace a call of it.

The forward may have been replaced on the instance, in a subclass, on PyTorch's class, or by a patch
of ``torch.nn.functional``. PyTorch's functions are recorded when this module is imported, and
compared at each call.
"""

from __future__ import annotations

from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

_nn = torch._C._nn

# Class -> the methods and functions that its forward calls, besides those of nn.Module.
_MADE_OF: dict[type[nn.Module], tuple[tuple[Any, str], ...]] = {
    nn.Conv2d: ((nn.Conv2d, "_conv_forward"), (F, "conv2d")),
    nn.ConvTranspose2d: ((nn.ConvTranspose2d, "_output_padding"), (F, "conv_transpose2d")),
    nn.Linear: ((F, "linear"),),
    nn.GroupNorm: ((F, "group_norm"), (torch, "group_norm")),
    nn.SiLU: ((F, "silu"), (_nn, "silu")),
    nn.ReLU: ((F, "relu"), (torch, "relu")),
    nn.LeakyReLU: ((F, "leaky_relu"), (_nn, "leaky_relu")),
    nn.Identity: (),
    nn.Dropout: ((F, "dropout"),),
    nn.Dropout2d: ((F, "dropout2d"),),
    nn.Upsample: ((F, "interpolate"), (_nn, "upsample_nearest2d")),
    nn.ConstantPad2d: ((F, "pad"), (_nn, "pad")),
    nn.ZeroPad2d: ((F, "pad"), (_nn, "pad")),
    nn.Sequential: ((nn.Sequential, "__iter__"),),
}
_CALLING = ("__call__", "_call_impl")


def is_from_torch(function: object) -> bool:
    """Whether a function or class was defined by PyTorch or Python, whatever its name is."""
    if isinstance(function, type):
        return function.__module__.split(".")[0] in ("torch", "builtins")
    if isinstance(function, FunctionType):
        return str(function.__globals__.get("__name__", "")).startswith("torch.")
    return isinstance(function, (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType))


def _original(owner: Any, name: str) -> object:
    function = getattr(owner, name)
    # A function that was replaced before this import is never equal to a new object.
    return function if is_from_torch(function) else object()


def _methods(kind: type[nn.Module]) -> dict[str, object]:
    own = [name for owner, name in _MADE_OF[kind] if owner is kind]
    return {name: _original(kind, name) for name in ("forward", *_CALLING, *own)}


_CALLS = {name: _original(nn.Module, name) for name in _CALLING}
_METHODS = {kind: _methods(kind) for kind in _MADE_OF}
_FUNCTIONS = {
    kind: tuple((owner, name, _original(owner, name)) for owner, name in parts if owner is not kind)
    for kind, parts in _MADE_OF.items()
}
# Methods of tensors that are part of a pattern (integrations/accelerate/patterns.py).
TENSOR_METHODS = {
    name: _original(torch.Tensor, name)
    for name in (
        *("add", "relu", "sigmoid", "contiguous"),
        *("__add__", "__iadd__", "__mul__", "__truediv__"),
    )
}


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class of ``module`` before it was accelerated."""
    return getattr(type(module), "_vaekernels_original", type(module))


def forward_of_class(kind: type[nn.Module]) -> Any:
    """The forward of ``kind``; None for the class of a TorchScript module."""
    return getattr(kind, "forward", None)


def runs_forward_of(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` runs the unmodified forward of PyTorch's ``kind``.

    Args:
        module: any module.
        kind: a class of PyTorch: Conv2d, ConvTranspose2d, Linear, GroupNorm, SiLU, ReLU, LeakyReLU,
            Identity, Dropout, Dropout2d, Upsample, ConstantPad2d, ZeroPad2d or Sequential.
    """
    own: Any = original_class(module)
    attributes = module.__dict__
    for name, method in _METHODS[kind].items():
        if name in attributes or getattr(own, name) is not method:
            return False
    for owner, name, original in _FUNCTIONS[kind]:  # noqa: SIM110 (generators take longer)
        if getattr(owner, name) is not original:
            return False
    return True


def runs_function_of(kind: type[nn.Module]) -> bool:
    """Whether the function that PyTorch's ``kind`` calls is itself unmodified inside."""
    for owner, name, original in _FUNCTIONS[kind]:
        if owner is not F and getattr(owner, name) is not original:
            return False
    return True


def is_called_as_usual(module: nn.Module) -> bool:
    """Whether ``module`` has the unmodified ``nn.Module.__call__``."""
    kind: Any = type(module)
    return all(getattr(kind, name) is _CALLS[name] for name in _CALLS)


def may_run_by_parameters(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether an op on the parameters of ``module`` may replace a call of it.

    This is so if it runs the forward of PyTorch's ``kind``, has no hooks, and is not compiled.

    Args:
        module: any module.
        kind: as for :func:`runs_forward_of`.
    """
    return (
        runs_forward_of(module, kind)
        and module._compiled_call_impl is None
        and not is_observed(module)
        and not all_are_observed()
    )


def extends(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``super().forward`` is the unmodified forward of PyTorch's ``kind``.

    Args:
        module: of a class with a forward of its own, derived from ``kind``.
        kind: as for :func:`runs_forward_of`.
    """
    own: Any = type(module)
    for name, method in _METHODS[kind].items():
        if getattr(kind, name) is not method:
            return False
        if name != "forward" and (name in module.__dict__ or getattr(own, name) is not method):
            return False
    functions = _FUNCTIONS[kind]
    unchanged = all(getattr(owner, name) is original for owner, name, original in functions)
    return unchanged and not functions_are_observed()


def is_observed(module: nn.Module) -> bool:
    """Whether ``module`` has hooks, so that it must be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def all_are_observed() -> bool:
    """Whether there are global hooks of modules, or an active TorchFunctionMode of a user."""
    return _has_any_global_hook() or functions_are_observed()


def functions_are_observed() -> bool:
    """Whether a TorchFunctionMode that is not PyTorch's is active."""
    # PyTorch's own, as that of ``torch.device(...)``, change no result.
    for i in range(torch._C._len_torch_function_stack()):
        if not type(torch._C._get_function_stack_at(i)).__module__.startswith("torch."):
            return True
    return False


def convolution_geometry(
    conv: nn.Conv2d | nn.ConvTranspose2d,
) -> tuple[int, int, int] | None:
    """Kernel size, stride and padding of a convolution, if equal in both directions.

    None if they differ, and with groups, dilation, output padding or a padding mode.
    """
    if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        return None
    if conv.output_padding != (0, 0):
        return None
    return square_geometry(conv)


def square_geometry(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int, int] | None:
    """Kernel size, stride and padding, if equal in both directions, whatever else is set."""
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    if padding == "same" and stride == (1, 1):
        padding = (kernel[0] // 2, kernel[1] // 2) if kernel == (3, 3) else padding
    elif padding == "valid":
        padding = (0, 0)
    for pair in (kernel, stride, padding):
        if len(pair) != 2 or pair[0] != pair[1]:
            return None
    return kernel[0], stride[0], padding[0]  # type: ignore[return-value]
