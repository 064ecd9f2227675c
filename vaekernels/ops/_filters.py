"""What the cpu kernels keep between calls: how long filters live, and freeing it all."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from vaekernels import _extension

# Identities of the weights whose end is awaited.
_watched: set[int] = set()


def keeps_filters(weight: Tensor, *, backward: bool = False) -> bool:
    """Whether the kernels keep filters of ``weight``: their rule, csrc/cpu/conv/filter_cache.cpp.

    Args:
        weight: of a convolution.
        backward: of its gradient, not of its result.
    """
    trained = weight.requires_grad and (backward or torch.is_grad_enabled())
    return not trained and not weight.is_inference()


def watch(weight: Tensor) -> None:
    """Where the kernels keep a filter of ``weight``, have it freed as soon as the weight dies.

    It is found dead without this too, but only when the next filter is kept.
    """
    key = id(weight)
    if key in _watched or not keeps_filters(weight):
        return
    _watched.add(key)
    # The kernels know a weight by the address of its TensorImpl, which they keep from being given
    # to another tensor.
    finalizer = weakref.finalize(weight, _forget, key, weight._cdata)
    finalizer.atexit = False


def _forget(key: int, address: int) -> None:
    _watched.discard(key)
    _extension.load().forget_filters(address)


def empty_cache() -> None:
    """Free the memory that the cpu backend keeps from call to call.

    It is that of the transformed filters of all weights; of large results that were freed; and
    the scratch of the calling thread and of the threads that PyTorch computes on for it. The next
    calls make again what they need. ``docs/convolutions.md`` says how much is kept, and when it
    goes by itself.

    Example:
        >>> images = decoder(latents)
        >>> vk.empty_cache()  # no more images for a while
    """
    if not _extension.refusals():
        _extension.load().empty_cache()
