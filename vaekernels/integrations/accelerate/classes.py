"""Replaces the class of a module by a subclass with another forward, and back.

The replacement keeps all its data on the class, so that copying or moving a module needs no care.
Names, ``isinstance``, ``state_dict``, hooks and ``repr`` are unchanged.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from vaekernels.integrations.accelerate.attention import forward_of, is_attention
from vaekernels.integrations.accelerate.fused_forward import LayerForward, ModuleForward
from vaekernels.nn.unmodified import original_class
from vaekernels.runtime.nonfinite_policy import guard_outermost_call

_PICKLING = (
    "an accelerated model cannot be pickled: save model.state_dict(), or call restore() of the "
    "handle first and vk.accelerate() after loading"
)
_SCRIPTING = (
    "an accelerated model cannot be scripted: call restore() of the handle first, then "
    "torch.jit.script()"
)


def exchange(
    module: nn.Module, forward: LayerForward | ModuleForward, on_nonfinite: str | None = None
) -> None:
    """Make ``module`` run ``forward``, under the policy ``on_nonfinite`` if that is not None."""
    make = _layer_class if isinstance(forward, LayerForward) else _make_class
    module.__class__ = make(type(module), forward, on_nonfinite)  # type: ignore[arg-type]


def is_accelerated(module: nn.Module) -> bool:
    """Whether the class of ``module`` was replaced by :func:`exchange`."""
    return original_class(module) is not type(module)


def restore(model: nn.Module) -> None:
    """Give all modules of ``model`` their original classes back.

    Raises:
        RuntimeError: other code replaced the class of one since; then nothing is restored.
    """
    accelerated = [(p, m) for p, m in model.named_modules() if is_accelerated(m)]
    for path, module in accelerated:
        if "_vaekernels_original" not in type(module).__dict__:
            raise RuntimeError(
                f"restore: the class of {path or 'the model'}, {type(module).__name__}, was "
                "changed after it was accelerated (parametrizations do that); undo that first"
            )
    for _, module in accelerated:
        module.__class__ = original_class(module)


def _make_class(
    original: type[nn.Module], run: LayerForward | ModuleForward, on_nonfinite: str | None
) -> type[nn.Module]:
    def own(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return super(made, self).forward(*args, **kwargs)  # looked up now: it may be replaced

    if is_attention(original):
        own = forward_of(own)

    def accelerated(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run(self, own, args, kwargs)

    if on_nonfinite is not None:
        accelerated = guard_outermost_call(accelerated, on_nonfinite)

    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # Adapters keep bound forwards, which outlive the class of their module.
        if not isinstance(self, made):
            return type(self).forward(self, *args, **kwargs)
        return accelerated(self, *args, **kwargs)

    members: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__deepcopy__": _deepcopy_of(original),
        "__copy__": _copy_of(original),
        "__reduce_ex__": _refuse_to_pickle,
        "__prepare_scriptable__": _refuse_to_be_scripted,
        "_vaekernels_original": original,
        "forward": forward,
    }
    if isinstance(run, ModuleForward):

        def inner(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return run.inner(self, own, args, kwargs)

        members["_vaekernels_inner"] = inner
    made: Any = type(original.__name__, (original,), members)
    return made


_layer_class = functools.cache(_make_class)


def _refuse_to_pickle(self: nn.Module, protocol: Any) -> Any:
    raise TypeError(_PICKLING)


def _refuse_to_be_scripted(self: nn.Module) -> Any:
    # TorchScript would compile the source of the original forward with the globals of this file.
    raise TypeError(_SCRIPTING)


def _deepcopy_of(original: type[nn.Module]) -> Callable[[Any, dict[int, Any]], Any]:
    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        if hasattr(original, "__deepcopy__"):
            return original.__deepcopy__(self, memo)  # type: ignore[attr-defined]
        make, args, *rest = _reduced(original, self)
        copied = make(*args)
        memo[id(self)] = copied
        return _with_state(copied, copy.deepcopy(rest[0] if rest else None, memo))

    return deepcopy


def _copy_of(original: type[nn.Module]) -> Callable[[Any], Any]:
    def shallow(self: Any) -> Any:
        if hasattr(original, "__copy__"):
            return original.__copy__(self)  # type: ignore[attr-defined]
        make, args, *rest = _reduced(original, self)
        return _with_state(make(*args), rest[0] if rest else None)

    return shallow


def _reduced(original: type[nn.Module], module: nn.Module) -> Any:
    return original.__reduce_ex__(module, 4)


def _with_state(module: Any, state: Any) -> Any:
    if state is not None and hasattr(module, "__setstate__"):
        module.__setstate__(state)
    return module
