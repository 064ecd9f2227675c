"""The dataset protocol, and iteration over a dataset in a given order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

# The held-out images do not depend on the training seed, so that runs with different seeds
# are measured on the same ones.
_SPLIT_SEED = 0
_CHUNK = 64

_D = TypeVar("_D", bound="Dataset")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Batch:
    """Samples of a dataset.

    Attributes:
        x: (B, C, H, W), as stored: uint8 in [0, 255], or float32 in [0, 1].
        y: (B,) int64 labels, or None.
        ids: (B,) int64: the place of each sample in its source.
    """

    x: Tensor
    y: Tensor | None
    ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``, with ``x`` as float32 in [0, 1]."""
        y = None if self.y is None else self.y.to(device)
        return Batch(as_float(self.x, device), y, self.ids.to(device))


class Dataset(Protocol):
    """A map-style dataset of images of one shape.

    Positions count from 0 to ``len(data) - 1``. Ids name samples of the source; they stay with
    the samples in a part of the dataset, key the noise, and name the rows of encoded latents.
    ``get`` must be a pure function of ``index``, and the dataset picklable if ``workers`` > 0.
    """

    @property
    def name(self) -> str:
        """Where the images come from, for messages."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    @property
    def ids(self) -> Tensor:
        """(N,) int64: the id of each position."""

    @property
    def labels(self) -> Tensor | None:
        """(N,) int64, or None."""

    @property
    def heldout(self: _D) -> _D | None:
        """The held-out images that the source itself has, or None."""

    @property
    def workers(self) -> int:
        """Processes that call ``get``; 0: the calling process does."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Arguments of :func:`~vaekernels.data.images.load_images` that read the source again."""

    def __len__(self) -> int: ...

    def get(self, index: Tensor) -> Batch:
        """The samples at the positions ``index``, an int64 tensor of shape (B,), on the CPU."""

    def take(self: _D, index: Tensor | slice) -> _D:
        """The dataset of the samples at ``index``, without ``heldout``."""

    def everything(self: _D) -> _D:
        """The dataset of all samples, those of ``heldout`` included."""

    def fingerprint(self) -> str:
        """KIND:DIGEST of the content and the order; a resumed run must find the same."""


def split(data: _D, fraction: float) -> tuple[_D, _D]:
    """Training and held-out images: the source's own, or ``fraction`` of it, always the same.

    Raises:
        ValueError: one of the two parts would be empty.
    """
    if data.heldout is not None:
        return data.take(slice(None)), data.heldout
    count = round(fraction * len(data))
    if not 0 < count < len(data):
        raise ValueError(
            f"data {data.name}: a held-out fraction of {fraction} leaves {len(data) - count} "
            f"images to train on and {count} held out, of {len(data)}; both need at least 1"
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return data.take(order[count:].sort().values), data.take(order[:count].sort().values)


def load_batches(data: Dataset, order: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
    """``data.get(index).to(device)`` for each ``index`` of ``order``.

    With ``data.workers`` > 0, worker processes decode at most two batches each ahead of the caller.
    The batches do not depend on their number.
    """
    for batch in map_in_order(data.get, order, data.workers):
        yield batch.to(device)


def chunks(data: Dataset) -> tuple[Tensor, ...]:
    """All positions in order, in parts small enough to decode each at once."""
    return torch.arange(len(data)).split(_CHUNK)


def pixel_digest(data: Dataset) -> str:
    """SHA-256 of the images in order, as stored; every image is read."""
    digest = None
    for batch in map_in_order(data.get, chunks(data), data.workers):
        if digest is None:
            digest = hashlib.sha256(str((batch.x.dtype, (len(data), *data.shape))).encode())
        digest.update(batch.x.contiguous().numpy().data)
    assert digest is not None
    return digest.hexdigest()


def as_float(images: Tensor, device: torch.device) -> Tensor:
    """``images`` on ``device`` as float32 in [0, 1]; bytes are copied, floats are made there."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory().to(device, non_blocking=True)
    else:
        images = images.to(device)
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def map_in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: int,
    context: str | None = None,
) -> Iterator[_Result]:
    """``map(function, items)`` by ``workers`` processes, in the order of ``items``.

    An error of ``function`` is raised here as it was raised there. No process is left when the
    iterator is exhausted, closed, or an error or Ctrl-C passes through it.

    Args:
        function: picklable, unless ``context`` is "fork".
        items: its arguments.
        workers: 0 calls ``function`` in this process.
        context: "fork", "spawn" or "forkserver"; None: the default of the platform.
    """
    if workers == 0:
        yield from map(function, items)
        return
    loader: DataLoader[Any] = DataLoader(
        _Mapped(function),  # type: ignore[arg-type]
        sampler=items,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=context,
        # Without its own generator, DataLoader draws a seed from torch's global one, whose state
        # is part of a checkpoint.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        for result in iterator:
            if isinstance(result, _Failure):
                raise result.error
            yield result
    finally:
        # DataLoader stops its workers when the iterator is freed, which the traceback of an error
        # delays. There is no public method.
        iterator._shutdown_workers()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Failure:
    error: Exception


class _Mapped:
    """``function`` as a map-style dataset of PyTorch, whose keys are the arguments."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.function(item)
        except (ValueError, OSError) as error:  # DataLoader would prefix a traceback to the message
            return _Failure(error)
