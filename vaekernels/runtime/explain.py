"""``vk.explain``: the backend and algorithm of a call, and the reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from vaekernels import ops
from vaekernels.backends import registry
from vaekernels.backends.definitions import DEFINITIONS
from vaekernels.integrations.accelerate import Report, explain_model
from vaekernels.ops._conv import CONVOLUTIONS
from vaekernels.runtime.conv_algorithm import ConvAlgorithm, algorithms_of


@dataclass(frozen=True)
class Explanation:
    """The result of :func:`explain` for an op; ``print`` shows it on a few lines.

    Attributes:
        op: name of the op.
        backend: the backend that would run the call.
        refusals: the reasons of each backend that cannot run the call. A backend that is neither
            listed nor selected can be selected explicitly.
        forward: the algorithm of the result; None if the op is not a convolution.
        x_gradient: the algorithm of the gradient of ``x``; None if the op is not a convolution.
        weight_gradient: the algorithm of the gradient of ``weight``; None if the op is not a
            convolution.
    """

    op: str
    backend: str
    refusals: dict[str, tuple[str, ...]]
    forward: ConvAlgorithm | None = None
    x_gradient: ConvAlgorithm | None = None
    weight_gradient: ConvAlgorithm | None = None

    def __str__(self) -> str:
        algorithms = {
            "forward": self.forward,
            "gradient of x": self.x_gradient,
            "gradient of weight": self.weight_gradient,
        }
        lines = [f"{self.op} runs on {self.backend}"]
        lines += [f"  {direction:18}  {found}" for direction, found in algorithms.items() if found]
        for backend, reasons in self.refusals.items():
            lines.append(f"  {'not ' + backend:18}  {'; '.join(reasons)}")
        return "\n".join(lines)


@overload
def explain(op: nn.Module, /, *args: Any, **kwargs: Any) -> Report: ...  # type: ignore[overload-overlap]


@overload
def explain(op: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation: ...


def explain(
    op: nn.Module | str | Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Explanation | Report:
    """Report what the call ``op(*args, **kwargs)`` would run, and why. An op is not executed.

    Args:
        op: a public op or its name, ``vk.conv3x3`` or ``"conv3x3"``; or a model, for which the
            report states what ``vk.accelerate`` does, or would do, with each of its layers. Layers
            of this package run on ops as they are.
        args: arguments of the call. A model is run on them once, in evaluation mode and without
            gradients. For this run it is accelerated if no part of it is; afterwards it is in its
            previous state. Without arguments a model is not run.
        kwargs: keyword arguments of the call. ``backend``, ``precision``, ``vk.use_backend``,
            autocast and, for an op, whether gradients are recorded have the same effect as in the
            call.

    Returns:
        For an op an :class:`Explanation`: the backend, the reasons of the others, and for a
        convolution the algorithm of each direction, selected by a cost model without measuring.
        For a model a ``vk.Report``; if the model was run, it contains the ``calls`` of each
        convolution with backend, shapes and algorithms.

    Raises:
        TypeError: ``op`` is neither a name, nor a function, nor a model.
        ValueError: ``op`` is not a public op.
        Exception: any error that the call itself would raise for these arguments.

    Example:
        >>> print(vk.explain(vk.conv3x3, x, weight, bias))
        conv3x3 runs on cpu
          forward             winograd F(4x4, 3x3): the cost model expects ...
          gradient of x       winograd F(4x4, 3x3): ...
          gradient of weight  winograd F(4x4, 3x3): ...
          not cuda            conv3x3 has no cuda kernels
          not triton          tensors are on cpu, expected cuda ...
        >>> print(vk.explain(vae, images))
        AutoencoderKL: 50 of 62 layers run on ops
          encoder.conv_in  conv3x3 on cpu, (1, 3, 512, 512): few_inputs: few input channels (3)
          ...
    """
    if isinstance(op, nn.Module):
        return explain_model(op, args, kwargs)
    name = _name_of(op)
    function = getattr(ops, name)
    with registry.recorded_choices() as choices:
        _dry_run(function, args, kwargs)
    choice = next(choice for choice in choices if choice.op == name)
    refusals = {
        backend: tuple(reasons)
        for backend in registry.BACKENDS
        if (reasons := registry.refusals(backend, name, choice.device, choice.dtype))
    }
    algorithms = algorithms_of(choice) if name in CONVOLUTIONS else ()
    return Explanation(name, choice.backend, refusals, *algorithms)


def _name_of(op: object) -> str:
    name = op if isinstance(op, str) else getattr(op, "__name__", None)
    if not isinstance(name, str) or not (isinstance(op, str) or callable(op)):
        raise TypeError(
            f"explain: op must be a name, a function or a model; got {type(op).__name__}"
        )
    if name not in DEFINITIONS or not (isinstance(op, str) or op is getattr(ops, name)):
        raise ValueError(f"explain: op must be one of {', '.join(DEFINITIONS)}; got {op!r}")
    return name


def _dry_run(function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Call ``function`` on fake tensors: all checks and selections run, nothing is computed."""
    # Imported here, because it takes half a second.
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)]
    mode = given[0].fake_mode if given else FakeTensorMode()

    def fake(tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)

    args, kwargs = tree_map_only(Tensor, fake, (args, kwargs))
    with mode:
        function(*args, **kwargs)
