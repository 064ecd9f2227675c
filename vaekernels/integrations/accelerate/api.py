"""``vk.accelerate``: run the layers of any model on this package's ops."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import nn

from vaekernels.integrations.accelerate.classes import exchange, restore
from vaekernels.integrations.accelerate.fused_forward import ModuleForward
from vaekernels.integrations.accelerate.plan import ModelPlan
from vaekernels.integrations.accelerate.report import Report, report
from vaekernels.integrations.accelerate.verification import Difference, compare, outputs
from vaekernels.ops._precision import conv_precision
from vaekernels.runtime.nonfinite_policy import checked_choice, warn_if_slow


class Handle:
    """The result of :func:`accelerate`: a report, and :meth:`restore`.

    As a context manager it restores the model at the end of the block.

    Attributes:
        model: the accelerated model.
        report: which op runs each layer, or why none does.
        differences: from the original's outputs, if ``verify`` was given; else empty.
    """

    def __init__(self, model: nn.Module, report: Report) -> None:
        self.model = model
        self.report = report
        self.differences: tuple[Difference, ...] = ()

    def restore(self) -> None:
        """Undo the acceleration: results are bitwise those of the original. Idempotent.

        Raises:
            RuntimeError: the class of a module was replaced since, as parametrizations do.
        """
        restore(self.model)

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        report = self.report
        done = f"{len(report.accelerated)} of {len(report.layers)} layers run on ops"
        return "; ".join([f"<Handle of {report.model}: {done}", *map(str, self.differences)]) + ">"


# The forward of a model without chains of its own, to which on_nonfinite applies all the same.
_UNCHANGED = ModuleForward({}, (), (), any_layout=False, frees_children=False)


def accelerate(
    model: nn.Module,
    *,
    verify: Any = None,
    precision: str | None = None,
    on_nonfinite: str | None = None,
) -> Handle:
    r"""Run the layers of ``model`` on this package's ops: in place, and reversibly.

    .. code-block:: python

        handle = vk.accelerate(vae, verify=images)
        print(handle.report)
        vae.decode(latents)  # as before, faster
        handle.restore()

    Equivalent PyTorch: the unchanged model. Convolutions (3x3 with stride 1 or 2, 4x4 with
    stride 2, transposed 4x4) and GroupNorms call this package's ops with their own parameters.
    Where the forward around them can be traced, GroupNorm + SiLU, nearest upsampling and padding
    before a convolution, and a sum and an activation after it, run in the same op. Parameters,
    state dict, hooks, ``isinstance`` and ``repr`` are unchanged. Calls that the ops do not support
    (another dtype or device, autocast, hooks on a layer, patches) run the original code; a model
    in float16 on a CPU warns once. See ``docs/accelerate.md``.

    Args:
        model: any module, for instance diffusers' AutoencoderKL, AutoencoderTiny, VQModel or
            AsymmetricAutoencoderKL. An accelerated model is restored first, so that the last call
            counts.
        verify: an input (a tensor, a tuple of arguments or a mapping of named ones) on which the
            model runs before and after, in evaluation mode and without gradients, with the same
            random numbers.
        precision: ``"medium"``, ``"high"``, ``"highest"``, or None for the one in force at each
            call (``vk.set_conv_precision``).
        on_nonfinite: what happens if a result in float16 or bfloat16 is not finite. None:
            results are not checked. ``"raise"``: a ``vk.NonFiniteError`` is raised.
            ``"retry_fp32"``: the result is computed again in float32, with copies of the weights
            and without autocast, and rounded, with one warning. Only results of the outermost
            accelerated calls are checked: of the model, or of the parts that other methods call.

    Returns:
        A :class:`Handle`.

    Raises:
        TypeError: ``model`` is not a module, or a scripted one with ``on_nonfinite``; or ``verify``
            is not an input.
        ValueError: ``precision`` or ``on_nonfinite`` is none of these.
        NonFiniteError: by the model, with ``"raise"``, or if the result in float32 is not finite.

    Precision: that of the ops (``vk.conv3x3``): with ``"high"`` each convolution and each of its
    gradients is within 2e-5 of its largest value.

    Example:
        >>> with vk.accelerate(vae) as handle:
        ...     images = vae.decode(latents).sample
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module; got {type(model).__name__}")
    if precision is not None:
        conv_precision("accelerate", precision)
    checked_choice("accelerate", on_nonfinite)
    if on_nonfinite is not None and isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "accelerate: on_nonfinite needs a model whose forward is Python; "
            f"got {type(model).__name__}"
        )
    for parameter in model.parameters():
        warn_if_slow("accelerate", parameter)
    restore(model)
    expected = None if verify is None else outputs(model, verify)
    plan = ModelPlan(model)
    found = report(plan)
    forwards = plan.forwards(precision)
    if on_nonfinite is not None and all(module is not model for module, _ in forwards):
        forwards.append((model, _UNCHANGED))
    for module, forward in forwards:
        exchange(module, forward, on_nonfinite)
    handle = Handle(model, found)
    if expected is not None:
        try:
            handle.differences = compare(outputs(model, verify), expected)
        except BaseException:
            handle.restore()
            raise
    return handle
