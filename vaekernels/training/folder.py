"""A folder of images, read with Pillow in sorted order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
_GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B"})


def read_folder(
    folder: Path, size: tuple[int, int] | None, channels: int | None
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Images (N, C, H, W) uint8, labels or None, and file names relative to ``folder``.

    The labels are the numbers of the sorted subfolders when every image lies in one and there
    are at least two.

    Raises:
        ValueError: no image, a file that is not an image, or unequal sizes without ``size``.
    """
    files = sorted(_image_files(folder))
    if not files:
        raise ValueError(f"data {folder}: no image in this folder ({', '.join(sorted(_SUFFIXES))})")
    if channels is None:
        channels = 1 if all(_mode(file) in _GREY for file in files) else 3
    elif channels not in (1, 3):
        raise ValueError(f"data {folder}: a folder is read with 1 or 3 channels; got {channels}")
    first = _read(files[0], size, channels)
    images = torch.empty(len(files), *first.shape, dtype=torch.uint8)
    bar = tqdm(files, desc="reading", unit=" images", leave=False, disable=None)
    for row, file in zip(images, bar, strict=True):
        image = _read(file, size, channels)
        if image.shape != first.shape:
            raise ValueError(
                f"{file}: image of {image.shape[1]} x {image.shape[2]} pixels, but {files[0]} "
                f"has {first.shape[1]} x {first.shape[2]}; give one size with --image-size"
            )
        row.copy_(image)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return images, _labels(names), names


def _image_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file():
            yield file


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """``file`` opened by Pillow, whose errors do not always name it."""
    try:
        with Image.open(file) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{file}: not an image that Pillow can read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read as an image ({error})") from error


def _mode(file: Path) -> str:
    with _opened(file) as image:
        return image.mode


def _read(file: Path, size: tuple[int, int] | None, channels: int) -> Tensor:
    with _opened(file) as opened:
        # Cameras store the turn of a picture beside it.
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # 16 bits: Pillow's own conversion clips at 255.
            image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def _labels(names: tuple[str, ...]) -> Tensor | None:
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None
    return torch.tensor([classes.index(top) for top in tops])
