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


def free_conv_memory() -> None:
    """Free what the convolutions keep from call to call, of the cpu backend.

    These are the transformed filters of all weights, and the scratch of the calling thread and of
    the threads that PyTorch computes on for it. The next call makes again what it needs.
    ``docs/convolutions.md`` says how much is kept and when it goes by itself.

    Example:
        >>> images = decoder(latents)
        >>> vk.free_conv_memory()  # no more images for a while
    """
    if not _extension.refusals():
        _extension.load().free_conv_memory()
