"""Registration of an op: schema, fake and autograd, once for every compiled backend.

An op ``X`` is two torch ops, ``X`` and ``X_backward``. The backward takes the gradients of
``X``'s outputs (of those that carry one), then the inputs of ``X``, then the outputs that were
saved for it, then ``mask``: which of the differentiable inputs want a gradient. It returns one
tensor per differentiable input, an empty one where the mask is false. That convention lets one
piece of code register autograd for all of them.

Two namespaces hold the same ops: ``vaekernels`` (the C++ and CUDA kernels; their autograd is
in C++, csrc/autograd.cpp) and ``vaekernels_triton`` (registered from Python).
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaekernels.backends import registry

NAMESPACES = ("vaekernels", "vaekernels_triton")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_libraries = {name: torch.library.Library(name, "DEF") for name in NAMESPACES}


def library(namespace: str) -> torch.library.Library:
    """The one that defines the ops of a namespace."""
    return _libraries[namespace]


@dataclass(frozen=True)
class OpDefinition:
    """What the torch dispatcher and the registry must know of an op.

    Attributes:
        name: of the op, in every layer.
        schema: arguments and returns, as torch writes them.
        fake: the outputs' shapes from the inputs.
        backward_schema: of ``X_backward``; None if the op has no gradient.
        differentiable: the inputs that get a gradient.
        saved_outputs: the outputs that backward takes.
        constant_outputs: the outputs that no gradient flows through.
        channels_last: the inputs whose gradients are channels_last, whatever the inputs are; the
            other gradients lie in memory as their inputs do.
        backends: those with kernels for the op, besides the reference: the dtypes that they take.
    """

    name: str
    schema: str
    fake: Callable[..., Any]
    backward_schema: str | None = None
    differentiable: Sequence[str] = ()
    saved_outputs: Sequence[str] = ()
    constant_outputs: Sequence[str] = ()
    channels_last: Sequence[str] = ()
    backends: Mapping[str, tuple[torch.dtype, ...]] = field(
        default_factory=lambda: dict.fromkeys(("cpu", "cuda", "triton"), DTYPES)
    )

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where the op is declared."""
        return NAMESPACES if "triton" in self.backends else NAMESPACES[:1]


DEFINITIONS: dict[str, OpDefinition] = {}


def define(definition: OpDefinition) -> None:
    """Declare the op and its backward, with fakes, in its namespaces."""
    name = definition.name
    DEFINITIONS[name] = definition
    registry.declare(name, definition.backends)
    for namespace in definition.namespaces:
        library = _libraries[namespace]
        library.define(name + definition.schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.register_fake(f"{namespace}::{name}", definition.fake, lib=library)
        if definition.backward_schema is None:
            continue
        library.define(
            f"{name}_backward" + definition.backward_schema, tags=(torch.Tag.pt2_compliant_tag,)
        )
        torch.library.register_fake(
            f"{namespace}::{name}_backward", _backward_fake(definition), lib=library
        )
        if namespace == "vaekernels_triton":
            _register_autograd(definition, namespace, library)


def _op(namespace: str, name: str) -> Any:
    return getattr(getattr(torch.ops, namespace), name).default


def input_names(definition: OpDefinition) -> list[str]:
    """The arguments of the op, in their order."""
    return [argument.name for argument in _op("vaekernels", definition.name)._schema.arguments]


def _output_positions(definition: OpDefinition, names: Sequence[str]) -> list[int]:
    """Of the outputs with these names."""
    returns = [output.name for output in _op("vaekernels", definition.name)._schema.returns]
    return [returns.index(name) for name in names]


def _positions(definition: OpDefinition) -> list[int]:
    """Of the differentiable inputs."""
    names = input_names(definition)
    return [names.index(name) for name in definition.differentiable]


def _backward_fake(definition: OpDefinition) -> Callable[..., Any]:
    count, positions = len(input_names(definition)), _positions(definition)
    formats = [
        torch.channels_last if name in definition.channels_last else torch.preserve_format
        for name in definition.differentiable
    ]

    def fake(*arguments: Any) -> Any:
        first = len(arguments) - 1 - count - len(definition.saved_outputs)
        inputs, mask = arguments[first : first + count], arguments[-1]
        return tuple(
            torch.empty_like(inputs[position], memory_format=memory_format)
            if wanted
            else inputs[0].new_empty(0)
            for position, memory_format, wanted in zip(positions, formats, mask, strict=True)
        )

    return fake


def _register_autograd(definition: OpDefinition, namespace: str, library: Any) -> None:
    qualified = f"{namespace}::{definition.name}"
    positions = _positions(definition)
    saved_positions = _output_positions(definition, definition.saved_outputs)
    constant_positions = _output_positions(definition, definition.constant_outputs)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.save_for_backward(
            *(value for value in inputs if isinstance(value, Tensor)),
            *(outputs[position] for position in saved_positions),
        )
        ctx.inputs = [None if isinstance(value, Tensor) else (value,) for value in inputs]
        ctx.mark_non_differentiable(*(outputs[position] for position in constant_positions))
        ctx.set_materialize_grads(False)
        ctx.context = contextvars.copy_context()  # the autograd engine has threads of its own

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        carried = [grad for i, grad in enumerate(grads) if i not in constant_positions]
        if all(grad is None for grad in carried):
            return (None,) * len(ctx.inputs)
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if value is None else value[0] for value in ctx.inputs]
        mask = [bool(ctx.needs_input_grad[position]) for position in positions]
        run = _op(namespace, f"{definition.name}_backward")
        # A copy: one context cannot be entered by two backwards at a time.
        computed = ctx.context.copy().run(run, *carried, *inputs, *saved, mask)
        result: list[Tensor | None] = [None] * len(inputs)
        for position, wanted, grad in zip(positions, mask, computed, strict=True):
            result[position] = grad if wanted else None
        return tuple(result)

    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=library)
    _refuse_double_backward(definition, namespace, library)


def _refuse_double_backward(definition: OpDefinition, namespace: str, library: Any) -> None:
    qualified = f"{namespace}::{definition.name}_backward"

    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError(
            f"{definition.name}: double backward is not implemented by the fused backends; "
            'use backend="reference"'
        )

    torch.library.register_autograd(qualified, backward, lib=library)
