"""Memory that the cpu kernels cache between calls: lifetime of transformed filters, freeing."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vaekernels.backends import extension
from vaekernels.ops._checks import derivatives_are_transformed

# Addresses of the storages that have a finalizer.
_tracked: set[int] = set()


def keeps_filters(weight: Tensor, *, backward: bool = False) -> bool:
    """Whether the kernels keep filters of ``weight``, rather than transform them at each call.

    Args:
        weight: of a convolution.
        backward: of its gradient, not of its result.
    """
    return not weight.requires_grad or not (backward or torch.is_grad_enabled())


def constant(weight: Tensor) -> Tensor:
    """Return ``weight`` such that the kernels may cache its transformed filters.

    The kernels cache filters of weights that do not require a gradient, until the weight is freed
    or changes. Where autograd is not recording, the weight is detached for this.
    """
    if not keeps_filters(weight) or derivatives_are_transformed():
        return weight
    if torch._C._get_tracing_state() is not None:  # torch.jit.trace would record the detaching
        return weight
    _track_weight(weight)
    return weight.detach() if weight.requires_grad else weight


def _track_weight(weight: Tensor) -> None:
    """Free the cached filters of ``weight`` as soon as its storage is freed.

    Without this they would be freed when the next filter is cached. The finalizer is attached to
    the storage, because ``torch.utils.swap_tensors`` refuses tensors with weak references.
    """
    storage = weight.untyped_storage()
    address = storage._cdata
    if address not in _tracked:
        _tracked.add(address)
        weakref.finalize(storage, _evict, address).atexit = False


def _evict(address: int) -> None:
    _tracked.discard(address)
    extension.load().forget_filters(address)


@contextlib.contextmanager
def released_after(weights: Iterable[Tensor]) -> Iterator[None]:
    """What the kernels keep of the calls in the block is freed behind it, and nothing else.

    That is the filters of ``weights``, and freed results beyond as many bytes as were kept before.
    """
    library = None if extension.refusals() else extension.load()
    before = 0 if library is None else library.pool_bytes()
    yield
    if library is not None:
        for weight in weights:
            if not weight.is_meta:
                library.forget_filters(weight.untyped_storage()._cdata)
        library.trim_pool(before)


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
    if not extension.refusals():
        extension.load().empty_cache()
