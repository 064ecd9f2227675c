"""Decides which ops run where in a model, without changing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from vaekernels.integrations.accelerate.attention import is_attention
from vaekernels.integrations.accelerate.chains import OPS
from vaekernels.integrations.accelerate.diffusers_patches import ignores_layout
from vaekernels.integrations.accelerate.fused_forward import LayerForward, ModuleForward
from vaekernels.integrations.accelerate.fx_rewrite import Chain
from vaekernels.integrations.accelerate.guards import Untraceable
from vaekernels.integrations.accelerate.memory_format import observable_nodes
from vaekernels.integrations.accelerate.patterns import LayerKind, is_torch_layer, match_layer
from vaekernels.integrations.accelerate.statistics_consumers import nodes_that_emit_statistics
from vaekernels.integrations.accelerate.trace_variants import TracedModule, trace_module
from vaekernels.nn.unmodified import original_class
from vaekernels.ops._uses import op_uses_of


@dataclass
class LayerPlan:
    """The plan of one module.

    Attributes:
        path: in the model; "" is the model itself.
        module: the module.
        is_ours: whether it is a layer of this package, or inside of one, and calls ops by itself.
        callers: modules with a forward that have it as a child, directly or in a list.
        traced: the traces of its forward; None for a layer, and where tracing failed.
        untraceable: why tracing failed.
    """

    path: str
    module: nn.Module
    is_ours: bool
    callers: list[nn.Module] = field(default_factory=list)
    traced: TracedModule | None = None
    untraceable: str = ""

    @property
    def is_layer(self) -> bool:
        """Whether it has an op of its own."""
        return not self.is_ours and (match_layer(self.module),) in OPS

    @property
    def chains(self) -> list[Chain]:
        """The chains of its forward."""
        return [] if self.traced is None else self.traced.chains

    @property
    def any_layout(self) -> bool:
        """Whether every caller accepts results of any memory format."""
        return bool(self.callers) and all(map(ignores_layout, self.callers))


class ModelPlan:
    """The plans of all modules of a model, parents before children."""

    def __init__(self, model: nn.Module) -> None:
        owners = [module for module in model.modules() if op_uses_of(module) is not None]
        ours = {id(module) for owner in owners for module in owner.modules()}
        self.plans = {
            id(module): LayerPlan(path, module, id(module) in ours)
            for path, module in model.named_modules()
        }
        self._accepting: dict[int, bool] = {}
        self._slow: dict[int, bool] = {}
        for plan in self.plans.values():
            for child in _called_children(plan.module):
                self.plans[id(child)].callers.append(plan.module)
            if _has_forward(plan.module) and not plan.is_ours:
                try:
                    plan.traced = trace_module(plan.module)
                except Untraceable as error:
                    plan.untraceable = str(error)
        # Computed here, because compiling a forward changes its graph.
        self._emitting = nodes_that_emit_statistics(
            {p.module: p.traced for p in self.plans.values() if p.traced is not None}
        )

    def forwards(
        self, precision: str | None
    ) -> list[tuple[nn.Module, LayerForward | ModuleForward]]:
        """The modules to accelerate, and their new forwards."""
        pairs = [(p.module, self._forward(p, precision)) for p in self.plans.values()]
        return [(module, forward) for module, forward in pairs if forward is not None]

    def _forward(
        self, plan: LayerPlan, precision: str | None
    ) -> LayerForward | ModuleForward | None:
        if plan.is_layer:
            return LayerForward(precision, plan.any_layout)
        frees_children = ignores_layout(plan.module)
        if not any(self._gains(module) for module in plan.module.modules()):
            return None
        if plan.traced is not None:
            accepts = self._gains_from_channels_last(plan.module)
            variants = plan.traced.variants(accepts, precision, self._emitting)
            defaults, required = plan.traced.defaults, plan.traced.required
            return ModuleForward(defaults, required, variants, plan.any_layout, frees_children)
        # Its children may return channels_last, which its callers must not observe.
        leaks = frees_children and not plan.any_layout
        if leaks or is_attention(original_class(plan.module)):
            return ModuleForward({}, (), (), plan.any_layout, frees_children)
        return None

    def _gains(self, module: nn.Module) -> bool:
        plan = self.plans[id(module)]
        return plan.is_layer or bool(plan.chains)

    def _gains_from_channels_last(self, module: nn.Module) -> Callable[[str], bool]:
        """Path of a child of ``module`` -> whether it accepts channels_last and is not slower."""

        def gains(path: str) -> bool:
            child = module.get_submodule(path)
            return self._accepts_any_layout(child) and not self._is_slowed(child)

        return gains

    def _is_slowed(self, module: nn.Module) -> bool:
        """Whether a convolution of PyTorch's, 1x1 aside, reads the inputs of ``module``.

        It is slower on channels_last images, by more than a copy of them costs.
        """
        key = id(module)
        if key not in self._slow:
            self._slow[key] = False  # ends the recursion where a module calls itself
            self._slow[key] = self._check_is_slowed(module)
        return self._slow[key]

    def _check_is_slowed(self, module: nn.Module) -> bool:
        if isinstance(module, nn.modules.conv._ConvNd):
            kind = match_layer(module)
            return kind is not LayerKind.CONV1X1 and (kind,) not in OPS
        traced = self.plans[id(module)].traced
        for found, chains in () if traced is None else traced.traces.values():
            ours = {node for chain in chains for node in chain.nodes}
            slowed = observable_nodes(
                found.graph, lambda path: not self._is_slowed(module.get_submodule(path)), ours
            )
            if any(node.op == "placeholder" for node in slowed):
                return True
        return False

    def _accepts_any_layout(self, module: nn.Module) -> bool:
        """Whether ``module`` accepts inputs of any memory format."""
        key = id(module)
        if key not in self._accepting:
            self._accepting[key] = self._check_accepts_any_layout(module)
        return self._accepting[key]

    def _check_accepts_any_layout(self, module: nn.Module) -> bool:
        traced = self.plans[id(module)].traced
        if isinstance(module, nn.modules.dropout._DropoutNd):
            return module.p == 0  # else it draws noise in memory order
        if ignores_layout(module) or (is_torch_layer(module) and traced is None):
            return True
        if traced is None:
            return False

        def child_accepts(path: str) -> bool:
            return self._accepts_any_layout(module.get_submodule(path))

        for found, _ in traced.traces.values():
            observable = observable_nodes(found.graph, child_accepts)
            if any(node.op == "placeholder" for node in observable):
                return False
        return True


def _has_forward(module: nn.Module) -> bool:
    """Whether ``module`` is neither a layer of PyTorch nor a list of modules."""
    return isinstance(module, nn.Sequential) or not is_torch_layer(module)


def _called_children(module: nn.Module) -> list[nn.Module]:
    """The children that a forward may call, including those in lists."""
    if not _has_forward(module):
        return []
    found = []
    for child in module.children():
        found.append(child)
        if not _has_forward(child):
            found += child.modules() if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else []
    return found
