"""Which op runs each layer of a model, or why none does."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vaekernels.backends import extension
from vaekernels.integrations.accelerate.call_recorder import LayerCall
from vaekernels.integrations.accelerate.chains import OPS
from vaekernels.integrations.accelerate.fx_rewrite import Chain
from vaekernels.integrations.accelerate.patterns import LayerKind, match_layer, reason
from vaekernels.integrations.accelerate.plan import LayerPlan, ModelPlan
from vaekernels.nn.unmodified import original_class
from vaekernels.ops._conv import CONVOLUTIONS
from vaekernels.ops._uses import OpUse, op_uses_of


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        path: in the model.
        kind: the name of its class.
        op: the op that computes it, alone or with its neighbours; None if it runs as before.
        parts: the layers and functions that the op computes, in order; of this package's own
            layers, up to the convolution.
        reason: why no op computes it; empty otherwise.
        calls: with an example, the distinct calls of a convolution's op. None without an example,
            and for other layers.
    """

    path: str
    kind: str
    op: str | None
    parts: tuple[str, ...] = ()
    reason: str = ""
    calls: tuple[LayerCall, ...] | None = None

    def lines(self) -> list[str]:
        """The lines printed after its path."""
        if self.op is None:
            return [f"not replaced: {self.reason}"]
        what = self.op + (f" ({' + '.join(self.parts)})" if len(self.parts) > 1 else "")
        if self.calls is None:
            return [what]
        if not self.calls:
            return [f"{what}, not called on this input"]
        first, *others = self.calls
        return [what + str(first).removeprefix(first.op), *map(str, others)]


@dataclass(frozen=True)
class Report:
    """What :func:`vk.accelerate` does with a model; ``print`` shows a line for each layer.

    Attributes:
        model: the name of its class.
        layers: the layers with parameters.
        unfollowed: path of a module -> why its forward cannot be traced, so that its layers
            run one by one.
        refusals: why the ops fall back to PyTorch, so that nothing is gained; usually empty.
        unmatched: with an example, calls of convolutions whose filters are not a parameter of the
            model, for instance computed by a parametrization.
    """

    model: str
    layers: tuple[LayerReport, ...]
    unfollowed: dict[str, str]
    refusals: tuple[str, ...] = ()
    unmatched: tuple[LayerCall, ...] = ()

    @property
    def accelerated(self) -> tuple[LayerReport, ...]:
        """The layers that an op computes."""
        return tuple(layer for layer in self.layers if layer.op is not None)

    @property
    def stays(self) -> tuple[LayerReport, ...]:
        """The layers that run as before."""
        return tuple(layer for layer in self.layers if layer.op is None)

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.accelerated)} of {len(self.layers)} layers run on ops"]
        width = max((len(layer.path) for layer in self.layers), default=0)
        for layer in self.layers:
            first, *others = layer.lines()
            lines.append(f"  {layer.path:{width}}  {first}")
            lines += [f"  {'':{width}}  {other}" for other in others]
        lines += [f"  filters that are no parameter: {call}" for call in self.unmatched]
        for path, why in self.unfollowed.items():
            lines.append(f"  {path or 'the model'}: layers run one by one; {why}")
        if self.refusals:
            lines.append(f"  nothing is gained: {'; '.join(self.refusals)}")
        was_run = any(layer.calls is not None for layer in self.layers)
        if not was_run and any(layer.op in CONVOLUTIONS for layer in self.layers):
            lines.append("  vk.explain(model, example) shows how each convolution is computed")
        return "\n".join(lines)


def report(plan: ModelPlan) -> Report:
    """The report of ``plan``."""
    plans = list(plan.plans.values())
    reports: dict[int, LayerReport] = {}
    for owner in plans:
        for chain in owner.chains:
            _add_chain(owner, chain, reports)
    for owner in reversed(plans):  # innermost first: its names are the shortest
        for use in op_uses_of(owner.module) or ():
            _add_op_use(owner, use, plan, reports)
    layers = [reports.get(id(p.module)) or _single_layer(p) for p in plans]
    unfollowed = {
        p.path: p.untraceable
        for p in plans
        if p.untraceable and any((match_layer(child),) in OPS for child in p.module.children())
    }
    return Report(
        original_class(plans[0].module).__name__,
        tuple(layer for layer in layers if layer is not None),
        unfollowed,
        tuple(extension.refusals()),
    )


def _add_chain(owner: LayerPlan, chain: Chain, reports: dict[int, LayerReport]) -> None:
    """Add the report of each layer of ``chain`` with parameters."""
    prefix = f"{owner.path}." if owner.path else ""
    parts = tuple(
        step if isinstance(step, str) else step[0].value
        for step in chain.steps
        if isinstance(step, str) or step[0] is not LayerKind.IDENTITY
    )
    for path in chain.paths:
        layer = owner.module.get_submodule(path)
        known = reports.get(id(layer))
        if _has_parameters(layer) and (known is None or len(known.parts) < len(parts)):
            kind = original_class(layer).__name__
            reports[id(layer)] = LayerReport(prefix + path, kind, chain.op, parts)


def _add_op_use(
    owner: LayerPlan, use: OpUse, plan: ModelPlan, reports: dict[int, LayerReport]
) -> None:
    """Add the reports of the layers of an op that the forward of ``owner`` calls."""
    prefix = f"{owner.path}." if owner.path else ""
    paths = {step: plan.plans[id(step)].path for step in use.parts if isinstance(step, nn.Module)}
    parts = tuple(
        step if isinstance(step, str) else paths[step].removeprefix(prefix) for step in use.parts
    )
    for layer, path in paths.items():
        kind = original_class(layer).__name__
        reports.setdefault(id(layer), LayerReport(path, kind, use.op, parts))


def _single_layer(plan: LayerPlan) -> LayerReport | None:
    """The report of a layer outside of all chains; None for a module without own parameters."""
    module = plan.module
    if not _has_parameters(module):
        return None
    kind = original_class(module).__name__
    if plan.is_layer:
        return LayerReport(plan.path, kind, OPS[match_layer(module),])
    return LayerReport(plan.path, kind, None, (), reason(module))


def _has_parameters(module: nn.Module) -> bool:
    return bool(module._parameters)
