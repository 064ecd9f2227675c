"""``vk.randn``: the library's noise stream itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaekernels.backends import registry
from vaekernels.backends.definitions import OpDefinition, define
from vaekernels.backends.reference import randn as reference
from vaekernels.ops._checks import FLOATING, check_sample_ids, check_step
from vaekernels.ops._seed import seed_tensor


def _fake(like: Tensor, seed: Tensor, step: int, sample_ids: Tensor | None) -> Tensor:
    return like.new_empty(like.shape)


define(
    OpDefinition(
        name="randn",
        schema="(Tensor like, Tensor seed, SymInt step, Tensor? sample_ids) -> Tensor",
        fake=_fake,
        reference=reference.randn,
    )
)


def randn(
    shape: Sequence[int],
    *,
    seed: int | Tensor,
    step: int = 0,
    sample_ids: Tensor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Standard normal noise that is the same on every device, in any batch order.

    .. math::
        \epsilon_{b,i} = \mathrm{BoxMuller}(\mathrm{Philox}_{seed}(\lfloor i/4 \rfloor,
        \mathrm{id}_b, step))_{i \bmod 4}

    Equivalent PyTorch: ``vaekernels/backends/reference/noise.py``, the contract written out.

    Args:
        shape: (B, ...); ``i`` counts the elements of a sample in row-major order.
        seed: 64 bits: an integer, or an int64 tensor with one element.
        step: a second key, in [0, 2**32).
        sample_ids: (B,) int64, the row's identity; None is ``arange(B)``.
        device: of the result; None is torch's default device.
        dtype: float64, float32, bfloat16 or float16; None is torch's default dtype.
        backend: one of ``vk.BACKENDS``; None chooses.

    Returns:
        A contiguous tensor of ``shape``: float32 normals, rounded once to ``dtype``. Not
        differentiable.

    Raises:
        TypeError: an argument has the wrong kind or dtype.
        ValueError: ``shape`` has no batch dim, or ``step``, ``seed``, ``sample_ids`` do not fit.
        BackendError: an explicitly chosen backend cannot run the call.

    Precision: bit-equal in float32 between the CPU, CUDA and Triton backends; within one unit
    in the last place of the reference. Tail to 6.66 standard deviations.

    Paper: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in FLOATING:
        raise TypeError(f"randn: dtype must be float64, float32, bfloat16 or float16; got {dtype}")
    _check_shape(shape)
    check_step("randn", step)
    # An expanded scalar says shape, dtype and device without occupying memory.
    like = torch.empty((), device=device, dtype=dtype).expand(tuple(shape))
    if sample_ids is not None:
        check_sample_ids("randn", sample_ids, like.shape[0])
    if seed is None:
        raise TypeError("randn: seed must be an integer or a tensor; got None")
    key = seed_tensor("randn", seed, None, like.device)
    return registry.implementation("randn", like, backend)(like, key, step, sample_ids)


def _check_shape(shape: object) -> None:
    if not isinstance(shape, (tuple, list)):  # torch.Size is a tuple
        raise TypeError(f"randn: shape must be a tuple of integers; got {shape!r}")
    if len(shape) == 0:
        raise ValueError("randn: shape must have a batch dim, (B, ...); got ()")
    for extent in shape:
        if isinstance(extent, (float, str)):
            raise TypeError(f"randn: shape must be a tuple of integers; got {tuple(shape)}")
        if extent < 0:
            raise ValueError(f"randn: shape must not have negative sizes; got {tuple(shape)}")
    if all(isinstance(extent, int) for extent in shape) and math.prod(shape) >= 2**63:
        raise ValueError(f"randn: shape must have less than 2**63 elements; got {tuple(shape)}")
