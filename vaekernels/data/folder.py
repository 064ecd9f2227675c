"""A folder of images, read with Pillow in sorted order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from vaekernels.utils.limits import check_room

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
_GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
# Formats without pixels of 32 bits: where Pillow's mode is I, they are scaled to 0..65535.
_WIDE_IS_16_BITS = frozenset({"PNG", "PPM"})
# What shows through transparent pixels, as on a page.
BACKGROUND = (255, 255, 255, 255)


def read_folder(
    folder: Path, size: tuple[int, int] | None, channels: int | None
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Images (N, C, H, W) uint8, labels or None, and file names relative to ``folder``.

    Every mode of Pillow is read. Transparent pixels show white; a turn noted in EXIF is made;
    pixels of 16 bits are scaled to 8 with rounding (colours of 16 bits keep their upper 8, which
    is what Pillow reads of them); floating pixels are those of [0, 1], and pixels of 32 bits
    those of [0, 255]. Of an animation or of several pages the first is read, with a warning.

    The labels are the numbers of the sorted subfolders when every image lies in one and there
    are at least two.

    Raises:
        ValueError: no image, a file that is not an image or whose pixels are out of range, or
            unequal sizes without ``size``.
    """
    files = sorted(_image_files(folder))
    if not files:
        raise ValueError(f"data {folder}: no image in this folder ({', '.join(sorted(_SUFFIXES))})")
    if size is not None:
        count = len(files) * size[0] * size[1] * (channels or 1)
        check_room(f"data {folder}: {len(files)} images of {size[0]} x {size[1]} pixels", count)
    headers = [_header(file) for file in files]
    if channels is None:
        channels = 1 if all(mode in _GREY for mode, _ in headers) else 3
    elif channels not in (1, 3):
        raise ValueError(f"data {folder}: a folder is read with 1 or 3 channels; got {channels}")
    first = _read(files[0], size, channels)
    what = f"data {folder}: {len(files)} images of shape {tuple(first.shape)}"
    check_room(what, len(files) * first.nbytes)
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
    animated = [file for file, (_, several) in zip(files, headers, strict=True) if several]
    if animated:
        warnings.warn(
            f"data {folder}: {len(animated)} of {len(files)} files have several frames or pages, "
            f"as {animated[0].name}; the first of each is read",
            stacklevel=3,
        )
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
        # Not by its name: Pillow maps such a TIFF into memory, and misreads it if it is turned.
        with file.open("rb") as stream, Image.open(stream) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{file}: not an image that Pillow can read") from error
    except Exception as error:  # of a broken file Pillow raises nearly every kind
        raise ValueError(f"{file}: cannot be read as an image ({error})") from error


def _header(file: Path) -> tuple[str, bool]:
    """The mode, and whether there are further frames or pages."""
    with _opened(file) as image:
        # Those of an MPO, as phones write, are previews and other views of the same scene.
        return image.mode, image.format != "MPO" and getattr(image, "is_animated", False)


def _read(file: Path, size: tuple[int, int] | None, channels: int) -> Tensor:
    with _opened(file) as opened:
        # Cameras store the turn of a picture beside it.
        image = ImageOps.exif_transpose(opened)
        sixteen_bits = opened.mode.startswith("I;16") or opened.format in _WIDE_IS_16_BITS
    if image.mode == "F" or image.mode.startswith("I"):
        image = _as_bytes(file, image, sixteen_bits)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    if image.mode in ("LAB", "HSV", "RGBA"):  # Pillow goes to grey through RGB, or not at all
        image = image.convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def _as_bytes(file: Path, image: Image.Image, sixteen_bits: bool) -> Image.Image:
    """A grey image of wide pixels with 8 bits; Pillow's own conversion clips at 255."""
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if image.mode == "F":
        if not (low >= 0.0 and high <= 1.0):  # also true of NaN
            raise ValueError(f"{file}: floating pixels must lie in [0, 1]; got [{low:g}, {high:g}]")
        grey = np.rint(pixels * 255.0)
    elif sixteen_bits:
        grey = (pixels.astype(np.int64) + 128) // 257
    elif low >= 0 and high <= 255:
        grey = pixels
    else:
        raise ValueError(
            f"{file}: pixels of 32 bits must lie in [0, 255]; got [{low}, {high}] (0..65535 is "
            "read from files of 16 bits)"
        )
    narrow = Image.fromarray(grey.astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:  # one grey value
        alpha = np.where(pixels == transparent, 0, 255).astype(np.uint8)
        narrow.putalpha(Image.fromarray(alpha))
    return narrow


def _labels(names: tuple[str, ...]) -> Tensor | None:
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(tops))
    if "" in classes or len(classes) < 2:
        return None
    return torch.tensor([classes.index(top) for top in tops])
