"""What became of each layer of a model, and why."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vaekernels.backends import extension
from vaekernels.integrations.accelerate.call_recorder import LayerCall
from vaekernels.integrations.accelerate.chains import OPS
from vaekernels.integrations.accelerate.fx_rewrite import Chain
from vaekernels.integrations.accelerate.module_patterns import IDLE, part, reason
from vaekernels.integrations.accelerate.plan import ModelPlan, Plan
from vaekernels.nn.unmodified import original_class
from vaekernels.ops._conv import CONVOLUTIONS
from vaekernels.ops._uses import OpUse, op_uses_of

_FUNCTIONS = {
    "s": "silu",
    "r": "relu",
    "l": "leaky_relu",
    "u": "upsampling",
    "p": "padding",
    "a": "residual",
}


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        path: in the model.
        kind: the name of its class.
        op: that computes it, alone or with its neighbours; None where it stays as it is.
        parts: what the op computes, in order: the names of layers and functions; of this
            package's own layers, up to the convolution.
        reason: why it stays; empty where an op computes it.
        calls: with an example, the calls of a convolution's op, each of its kinds once. None
            without an example, and for other layers.
    """

    path: str
    kind: str
    op: str | None
    parts: tuple[str, ...] = ()
    reason: str = ""
    calls: tuple[LayerCall, ...] | None = None

    def lines(self) -> list[str]:
        """What is printed of it behind its path."""
        if self.op is None:
            return [f"stays: {self.reason}"]
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
        layers: those with parameters, and what runs with them.
        unfollowed: path of a module -> why its forward cannot be followed, so that its layers
            run one by one.
        refusals: why the ops run on PyTorch alone, so that nothing is gained; mostly empty.
        unmatched: with an example, calls of convolutions whose filters are no parameter of the
            model: made from one, as by a parametrization, or none.
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
        """The layers that stay as they are."""
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
    """The report of what ``plan`` does."""
    plans = list(plan.plans.values())
    inside: dict[int, LayerReport] = {}
    for owner in plans:
        for chain in owner.chains:
            _enter(owner, chain, inside)
    for owner in reversed(plans):  # the innermost, whose names are the shortest, comes first
        for use in op_uses_of(owner.module) or ():
            _enter_use(owner, use, plan, inside)
    layers = [inside.get(id(p.module)) or _alone(p) for p in plans]
    unfollowed = {
        p.path: p.untraceable
        for p in plans
        if p.untraceable and any(part(child)[0] in OPS for child in p.module.children())
    }
    return Report(
        original_class(plans[0].module).__name__,
        tuple(layer for layer in layers if layer is not None),
        unfollowed,
        tuple(extension.refusals()),
    )


def _enter(owner: Plan, chain: Chain, inside: dict[int, LayerReport]) -> None:
    """Note for each layer of ``chain`` that has parameters what computes it."""
    prefix = f"{owner.path}." if owner.path else ""
    parts = tuple(
        step if isinstance(step, str) else _FUNCTIONS[step[0]]
        for step in chain.steps
        if isinstance(step, str) or step[0] != IDLE
    )
    for path in chain.paths:
        layer = owner.module.get_submodule(path)
        known = inside.get(id(layer))
        if _has_parameters(layer) and (known is None or len(known.parts) < len(parts)):
            kind = original_class(layer).__name__
            inside[id(layer)] = LayerReport(prefix + path, kind, chain.op, parts)


def _enter_use(owner: Plan, use: OpUse, plan: ModelPlan, inside: dict[int, LayerReport]) -> None:
    """Note what computes the layers of an op that ``owner`` itself calls."""
    prefix = f"{owner.path}." if owner.path else ""
    paths = {step: plan.plans[id(step)].path for step in use.parts if isinstance(step, nn.Module)}
    parts = tuple(
        step if isinstance(step, str) else paths[step].removeprefix(prefix) for step in use.parts
    )
    for layer, path in paths.items():
        kind = original_class(layer).__name__
        inside.setdefault(id(layer), LayerReport(path, kind, use.op, parts))


def _alone(plan: Plan) -> LayerReport | None:
    """A layer outside of all chains; None for what has no parameters or is made of others."""
    module = plan.module
    if not _has_parameters(module):
        return None
    kind = original_class(module).__name__
    if plan.is_layer:
        return LayerReport(plan.path, kind, OPS[part(module)[0]])
    return LayerReport(plan.path, kind, None, (), reason(module))


def _has_parameters(module: nn.Module) -> bool:
    return bool(module._parameters)
