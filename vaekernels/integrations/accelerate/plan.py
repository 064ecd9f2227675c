"""What would run where in a model: one pass over its modules, nothing is changed."""

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
from vaekernels.integrations.accelerate.memory_format import shown
from vaekernels.integrations.accelerate.module_patterns import PROJECTION, is_torch_layer, part
from vaekernels.integrations.accelerate.statistics_consumers import asking
from vaekernels.integrations.accelerate.trace_variants import Followed, follow
from vaekernels.nn.unmodified import original_class
from vaekernels.ops._uses import op_uses_of


@dataclass
class Plan:
    """What is known of one module.

    Attributes:
        path: in the model; "" is the model itself.
        module: the one.
        is_ours: whether it is a layer of this package, or inside of one, and so runs on ops as it
            is.
        callers: modules with a forward that have it as a child, directly or in a list.
        followed: what tracing its forward found; None for a layer, and where it failed.
        untraceable: why it failed.
    """

    path: str
    module: nn.Module
    is_ours: bool
    callers: list[nn.Module] = field(default_factory=list)
    followed: Followed | None = None
    untraceable: str = ""

    @property
    def is_layer(self) -> bool:
        """Whether it has an op of its own."""
        return not self.is_ours and part(self.module)[0] in OPS

    @property
    def chains(self) -> list[Chain]:
        """Those of its forward."""
        return [] if self.followed is None else self.followed.chains

    @property
    def any_layout(self) -> bool:
        """Whether every caller is known to take results of any layout."""
        return bool(self.callers) and all(map(ignores_layout, self.callers))


class ModelPlan:
    """The plans of all modules of a model, parents before children."""

    def __init__(self, model: nn.Module) -> None:
        owners = [module for module in model.modules() if op_uses_of(module) is not None]
        ours = {id(module) for owner in owners for module in owner.modules()}
        self.plans = {
            id(module): Plan(path, module, id(module) in ours)
            for path, module in model.named_modules()
        }
        self._hiding: dict[int, bool] = {}
        self._slowed: dict[int, bool] = {}
        for plan in self.plans.values():
            for child in _called_children(plan.module):
                self.plans[id(child)].callers.append(plan.module)
            if _has_forward(plan.module) and not plan.is_ours:
                try:
                    plan.followed = follow(plan.module)
                except Untraceable as error:
                    plan.untraceable = str(error)
        # Now, since a graph is changed where its forward is made.
        self._asking = asking(
            {p.module: p.followed for p in self.plans.values() if p.followed is not None}
        )

    def forwards(
        self, precision: str | None
    ) -> list[tuple[nn.Module, LayerForward | ModuleForward]]:
        """The modules that should run something else, and what."""
        pairs = [(p.module, self._forward(p, precision)) for p in self.plans.values()]
        return [(module, forward) for module, forward in pairs if forward is not None]

    def _forward(self, plan: Plan, precision: str | None) -> LayerForward | ModuleForward | None:
        if plan.is_layer:
            return LayerForward(precision, plan.any_layout)
        frees_children = ignores_layout(plan.module)
        if not any(self._gains(module) for module in plan.module.modules()):
            return None
        if plan.followed is not None:
            hides = self._takes_channels_last(plan.module)
            variants = plan.followed.variants(hides, precision, self._asking)
            defaults, required = plan.followed.defaults, plan.followed.required
            return ModuleForward(defaults, required, variants, plan.any_layout, frees_children)
        # Its children may give it channels_last; its callers must not see that.
        leaks = frees_children and not plan.any_layout
        if leaks or is_attention(original_class(plan.module)):
            return ModuleForward({}, (), (), plan.any_layout, frees_children)
        return None

    def _gains(self, module: nn.Module) -> bool:
        plan = self.plans[id(module)]
        return plan.is_layer or bool(plan.chains)

    def _hides_child(self, module: nn.Module) -> Callable[[str], bool]:
        return lambda path: self._hides(module.get_submodule(path))

    def _takes_channels_last(self, module: nn.Module) -> Callable[[str], bool]:
        """Path of a child of ``module`` -> whether it takes such results, and is not slower."""

        def takes(path: str) -> bool:
            child = module.get_submodule(path)
            return self._hides(child) and not self._is_slowed(child)

        return takes

    def _is_slowed(self, module: nn.Module) -> bool:
        """Whether a convolution of PyTorch's, 1x1 aside, reads what ``module`` is given.

        It is slower on channels_last images than a copy of them costs.
        """
        key = id(module)
        if key not in self._slowed:
            self._slowed[key] = False  # where a module is called in itself
            self._slowed[key] = self._finds_out_whether_slowed(module)
        return self._slowed[key]

    def _finds_out_whether_slowed(self, module: nn.Module) -> bool:
        if isinstance(module, nn.modules.conv._ConvNd):
            letter = part(module)[0]
            return letter != PROJECTION and letter not in OPS
        followed = self.plans[id(module)].followed
        for found, chains in () if followed is None else followed.traces.values():
            ours = {node for chain in chains for node in chain.nodes}
            slowed = shown(
                found.graph, lambda path: not self._is_slowed(module.get_submodule(path)), ours
            )
            if any(node.op == "placeholder" for node in slowed):
                return True
        return False

    def _hides(self, module: nn.Module) -> bool:
        """Whether ``module`` takes inputs of any layout."""
        key = id(module)
        if key not in self._hiding:
            self._hiding[key] = self._finds_out_whether_hides(module)
        return self._hiding[key]

    def _finds_out_whether_hides(self, module: nn.Module) -> bool:
        followed = self.plans[id(module)].followed
        if isinstance(module, nn.modules.dropout._DropoutNd):
            return module.p == 0  # else it draws noise, in the order of the memory
        if ignores_layout(module) or (is_torch_layer(module) and followed is None):
            return True
        if followed is None:
            return False
        child_hides = self._hides_child(module)
        for found, _ in followed.traces.values():
            seen = shown(found.graph, child_hides)
            if any(node.op == "placeholder" for node in seen):
                return False
        return True


def _has_forward(module: nn.Module) -> bool:
    """Whether ``module`` is more than a layer of PyTorch or a list of modules."""
    return isinstance(module, nn.Sequential) or not is_torch_layer(module)


def _called_children(module: nn.Module) -> list[nn.Module]:
    """The children that a forward may call; those in lists are the list owner's."""
    if not _has_forward(module):
        return []
    found = []
    for child in module.children():
        found.append(child)
        if not _has_forward(child):
            found += child.modules() if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else []
    return found
