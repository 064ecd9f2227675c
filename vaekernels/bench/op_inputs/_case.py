"""An op with inputs for tests and benchmarks, how to run it, and the computed tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

# Shapes of latents, by their model.
LATENT_SHAPES: dict[str, tuple[int, ...]] = {
    "mnist_mlp_b128": (128, 20),
    "vector64_b1024": (1024, 64),
    "vector256_b4096": (4096, 256),
    "sd_latent_512px_b64": (64, 4, 64, 64),
    "sd3_latent_256px_b256": (256, 16, 32, 32),
}

# Tails: around the vector width, the chunk, the segment of a row; several rows in a chunk; empty
# batch, empty event.
ODD_SHAPES: dict[str, tuple[int, ...]] = {
    "one": (1, 1),
    "seven": (7, 7),
    "odd_image": (3, 1, 7, 33),
    "chunk_tail": (2, 257),
    "segment_tail": (2, 8192 + 5),
    "rank1": (33,),
    "short_rows": (45, 12),
    "empty_batch": (0, 20),
    "empty_event": (3, 0),
}

SEED = 20


@dataclass(frozen=True)
class OpCases:
    """An op, its inputs and its counterpart in plain PyTorch.

    Attributes:
        op: the op's name.
        inputs: (shape, dtype, generator) -> input tensors, ranges as in a VAE.
        ours: the public function on these inputs; takes ``backend=``.
        eager: the same result in plain PyTorch.
        deterministic_eager: ``eager`` computes the numbers of ``ours``: there is no noise.
        differentiable: indices of the inputs with a gradient.
        shapes: name -> shape, of the first input unless the op defines another meaning.
    """

    op: str
    inputs: Callable[[tuple[int, ...], torch.dtype, torch.Generator], tuple[Tensor, ...]]
    ours: Callable[..., Any]
    eager: Callable[..., Any]
    differentiable: tuple[int, ...]
    deterministic_eager: bool = True
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(LATENT_SHAPES))


def error(got: Tensor, exact: Tensor) -> float:
    """Largest difference over the largest exact magnitude."""
    if exact.numel() == 0:
        return 0.0
    got, exact = got.detach(), exact.detach()
    scale = exact.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((got.double() - exact.double()).abs().max() / scale)


def summed_terms(result: Tensor, shape: Sequence[int]) -> int:
    """The number of terms that an element of ``result`` sums, for a first input of ``shape``.

    A number per row sums a row, a single number sums them all.
    """
    row = math.prod(shape[1:]) if result.ndim <= 1 else 1
    return row * (shape[0] if result.ndim == 0 else 1)


def tolerance(eager_error: float, dtype: torch.dtype, reduced: int = 1) -> float:
    """The error allowed against float64: twice eager's, plus a floor of a few roundings.

    Args:
        eager_error: error of plain PyTorch in the same dtype.
        dtype: of the output.
        reduced: how many terms were summed; the floor grows with its square root.

    The floor is one of the type that is computed in: a result in a 16-bit type is rounded once,
    which eager's error already contains.
    """
    computed = torch.promote_types(dtype, torch.float32)
    return 2.0 * eager_error + 4.0 * torch.finfo(computed).eps * math.sqrt(max(reduced, 1))


def options(cases: OpCases) -> dict[str, object]:
    """Options of the public function: a fixed seed where the op draws noise."""
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
