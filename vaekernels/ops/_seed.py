"""Seeds: an integer, a tensor, or one drawn from the torch generator."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from vaekernels.backends import extension


@functools.cache
def _extension_draw_seed() -> Callable[[], Tensor] | None:
    if extension.refusals():
        return None
    return torch.ops.vaekernels.draw_seed.default


def _is_traced() -> bool:
    """Whether a compiler, ``torch.jit.trace`` or a functional transform watches the call.

    They know ``torch.randint`` as random: that it is drawn at each call of what they made, and
    for each row of ``torch.vmap(randomness="different")``. ``torch.jit.trace`` keeps the results
    of all other ops without inputs as constants.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def seed_tensor(
    op: str, seed: int | Tensor | None, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """The 64-bit seed as a 0-dim int64 tensor.

    An integer in [-2**63, 2**64) keeps its 64 bits. Without a seed one is drawn from
    ``generator``, or from the default generator of ``device``, and stays on that device: no
    synchronisation, and a CUDA graph draws a new one at each replay.
    """
    if not isinstance(generator, (torch.Generator, type(None))):
        raise TypeError(
            f"{op}: generator must be a torch.Generator or None; got {type(generator).__name__}"
        )
    if seed is None:
        if generator is None and device.type == "cpu" and not _is_traced():
            draw = _extension_draw_seed()
            if draw is not None:
                return draw()
        where = device if generator is None else generator.device
        try:
            return torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=where)
        except RuntimeError as error:  # as under torch.vmap, which allows no random numbers
            raise RuntimeError(f"{op}: no seed can be drawn; pass seed=. {error}") from error
    if generator is not None:
        raise ValueError(f"{op}: expected seed or generator, got both")
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise TypeError(
                f"{op}: seed must be an integer or an int64 tensor with one element; "
                f"got {seed.dtype} of shape {tuple(seed.shape)}"
            )
        return seed if seed.ndim == 0 else seed.reshape(())
    if not isinstance(seed, int):
        raise TypeError(f"{op}: seed must be an integer or a tensor; got {type(seed).__name__}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{op}: seed must fit into 64 bits, [-2**63, 2**64); got {seed}")
    return torch.tensor(seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64, device="cpu")
