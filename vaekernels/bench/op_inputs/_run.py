"""Run a case: results, and the gradients of a fixed combination of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vaekernels.bench.op_inputs._case import OpCases

SEED = 20


def options(cases: OpCases) -> dict[str, object]:
    """Of the public function: a fixed seed where the op draws noise."""
    return {} if cases.deterministic_eager else {"seed": SEED}


def run(
    cases: OpCases, inputs: Sequence[Tensor], backend: str, grads: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs, the output gradients used, and the gradients of the differentiable inputs."""
    leaves = [t.detach().requires_grad_(i in cases.differentiable) for i, t in enumerate(inputs)]
    outputs = tree_leaves(cases.ours(*leaves, backend=backend, **options(cases)))
    if grads is None:
        device = inputs[0].device
        generator = torch.Generator(device).manual_seed(1)
        grads = [torch.randn(o.shape, generator=generator, device=device) for o in outputs]
    grads = [g.to(o.dtype) for g, o in zip(grads, outputs, strict=True)]
    wanted = [leaves[i] for i in cases.differentiable]
    return outputs, list(grads), list(torch.autograd.grad(outputs, wanted, grads))
