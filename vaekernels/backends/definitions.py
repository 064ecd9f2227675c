"""Definitions of the ops: schema, fake, autograd, and the backends that implement each.

An op ``X`` is two torch ops, ``X`` and ``X_backward``. The backward takes the gradients of
``X``'s outputs (of those that carry one), then the inputs of ``X``, then the outputs that were
saved for it, then ``mask``: which of the differentiable inputs need a gradient. It returns one
tensor per differentiable input, an empty one where the mask is false. With this convention one
piece of code registers autograd for all ops.

Two namespaces hold the same ops: ``vaekernels`` (the C++ and CUDA kernels; their autograd is
in C++, csrc/autograd.cpp) and ``vaekernels_triton`` (registered from Python).

This module imports no other module of the package. Every file of ``vaekernels/ops`` defines its op
here; the registry and the Triton backend read ``DEFINITIONS``. The compiled library may be loaded
before or after: the dispatcher accepts an implementation before its schema.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NAMESPACES = ("vaekernels", "vaekernels_triton")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Count, mean and M2 of each channel, for this many parts of an image: the second result of
# chained_conv. Enough parts to merge in parallel, and few enough for one program to merge.
STATISTICS_PARTS = 32
LIBRARIES = {name: torch.library.Library(name, "DEF") for name in NAMESPACES}


@dataclass(frozen=True)
class OpDefinition:
    """Everything that is registered for an op.

    Attributes:
        name: name of the op in every layer.
        schema: arguments and returns in the notation of ``torch.library``.
        fake: computes the outputs' shapes, dtypes and strides from the inputs.
        reference: the implementation in plain PyTorch; takes the arguments of the schema.
        backward_schema: schema of ``X_backward``; None if the op has no gradient.
        differentiable: names of the inputs that receive a gradient.
        saved_outputs: names of the outputs that are saved for backward.
        constant_outputs: names of the outputs that no gradient flows through.
        channels_last: names of the inputs whose gradients are always channels_last; the other
            gradients have the strides of their inputs.
        backends: backends with kernels for the op, besides the reference -> supported dtypes.
    """

    name: str
    schema: str
    fake: Callable[..., Any]
    reference: Callable[..., Any]
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
        """Namespaces that hold the op."""
        return NAMESPACES if "triton" in self.backends else NAMESPACES[:1]


DEFINITIONS: dict[str, OpDefinition] = {}


def define(definition: OpDefinition) -> None:
    """Register schemas and fakes of the op and its backward in its namespaces."""
    name = definition.name
    DEFINITIONS[name] = definition
    for namespace in definition.namespaces:
        library = LIBRARIES[namespace]
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
    """Names of the arguments, in the order of the schema."""
    return [argument.name for argument in _op("vaekernels", definition.name)._schema.arguments]


def _output_positions(definition: OpDefinition, names: Sequence[str]) -> list[int]:
    """Positions of the outputs with these names."""
    returns = [output.name for output in _op("vaekernels", definition.name)._schema.returns]
    return [returns.index(name) for name in names]


def _positions(definition: OpDefinition) -> list[int]:
    """Positions of the differentiable inputs."""
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
