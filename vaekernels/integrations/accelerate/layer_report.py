"""``vk.explain`` of a model: which op runs each layer, and with an example, by which algorithm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vaekernels.integrations.accelerate.api import accelerate
from vaekernels.integrations.accelerate.call_recorder import LayerCall, recorded_calls
from vaekernels.integrations.accelerate.classes import is_accelerated
from vaekernels.integrations.accelerate.plan import ModelPlan
from vaekernels.integrations.accelerate.report import LayerReport, Report, report


def explain_model(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Report:
    """What :func:`accelerate` does with ``model``, and how each op computes an example.

    Args:
        model: unchanged. If neither it nor a part of it is accelerated, it is for the run.
        args: the example: the model is run on it, unless it is empty.
        kwargs: named arguments of the example.
    """
    if not args and not kwargs:
        return report(ModelPlan(model))
    if any(map(is_accelerated, model.modules())):
        return _with_calls(report(ModelPlan(model)), model, recorded_calls(model, args, kwargs))
    with accelerate(model) as handle:
        return _with_calls(handle.report, model, recorded_calls(model, args, kwargs))


def _with_calls(
    report: Report, model: nn.Module, calls: Sequence[tuple[Tensor, LayerCall]]
) -> Report:
    """``report``, with each call at the layers that own its filters."""
    calls_by_filter: dict[int, list[LayerCall]] = defaultdict(list)
    for weight, call in calls:
        calls_by_filter[id(weight)].append(call)
    modules = dict(model.named_modules())
    layers = tuple(
        _with_own_calls(layer, modules[layer.path], calls_by_filter) for layer in report.layers
    )
    known = {id(parameter) for parameter in model.parameters()}
    others = dict.fromkeys(call for weight, call in calls if id(weight) not in known)
    return replace(report, layers=layers, unmatched=tuple(others))


def _with_own_calls(
    layer: LayerReport, module: nn.Module, calls_by_filter: Mapping[int, list[LayerCall]]
) -> LayerReport:
    """``layer`` with the calls whose filters are a parameter of ``module``."""
    parameters = module._parameters.values()
    calls = tuple(
        dict.fromkeys(call for p in parameters for call in calls_by_filter.get(id(p), ()))
    )
    if not calls:
        is_convolution = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        return replace(layer, calls=()) if is_convolution else layer
    if layer.op == calls[0].op:
        return replace(layer, calls=calls)
    # The model calls an op by itself, or another chain on this input: the recorded op counts.
    return replace(layer, op=calls[0].op, parts=(), reason="", calls=calls)
