"""Decoding of one picture, from a file or from its bytes, into a uint8 tensor."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

_GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
# Formats without pixels of 32 bits: where Pillow's mode is I, they are scaled to 0..65535.
_WIDE_IS_16_BITS = frozenset({"PNG", "PPM"})
_FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class Decoding:
    """How a picture becomes a tensor.

    Attributes:
        channels: 1 (grey, by ITU-R 601-2) or 3 (RGB).
        size: (height, width) of the result; None keeps the size of the picture.
        fit: how a picture of another size is resized. "crop" covers ``size`` and crops the centre,
            "pad" fits within ``size`` and fills the borders with ``background``, "stretch" does
            not keep the aspect ratio.
        resample: the filter, a name of ``PIL.Image.Resampling`` in lower case.
        background: the colour below transparent pixels, as ``PIL.ImageColor`` reads it: a name,
            "#rrggbb", "rgb(r, g, b)" ...

    Raises:
        ValueError: a value is none of these.
    """

    channels: int = 3
    size: tuple[int, int] | None = None
    fit: str = "crop"
    resample: str = "lanczos"
    background: str = "white"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"pictures are decoded with 1 or 3 channels; got {self.channels}")
        filters = [each.name.lower() for each in Image.Resampling]
        for name, value, known in (
            ("fit", self.fit, _FITS),
            ("resample", self.resample, filters),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError as error:
            raise ValueError(
                f"background must be a colour such as white or #ff8000; got {self.background!r}"
            ) from error


@dataclass(frozen=True)
class Header:
    """What the header of a picture contains.

    Attributes:
        grey: whether its mode has no colours.
        several: whether there are further frames or pages.
        size: (height, width), before an EXIF orientation is applied.
    """

    grey: bool
    several: bool
    size: tuple[int, int]


def decode(source: Path | bytes, how: Decoding, name: str = "picture") -> Tensor:
    """Decode one picture.

    Every mode of Pillow is read. Transparent pixels are composited over ``how.background``, the
    EXIF orientation is applied, and CMYK and other colour modes are converted to RGB. Pixels of
    16 bits are scaled to 8 with rounding (colours of 16 bits keep their upper 8, which is what
    Pillow reads of them); floating pixels must lie in [0, 1], and pixels of 32 bits in [0, 255].
    Of an animation, or of several pages, the first is read.

    Args:
        source: a file, or the content of one.
        how: channels, size and background.
        name: the name of the picture in errors, where ``source`` is its content.

    Returns:
        (C, H, W), uint8.

    Raises:
        ValueError: not a picture, a broken one, or pixels out of range; the message begins with
            the file or ``name``.
    """
    what = str(source) if isinstance(source, Path) else name
    with _opened(source, what) as opened:
        image = ImageOps.exif_transpose(opened)
        sixteen_bits = opened.mode.startswith("I;16") or opened.format in _WIDE_IS_16_BITS
    if image.mode == "F" or image.mode.startswith("I"):
        image = _as_bytes(what, image, sixteen_bits)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        below = Image.new("RGBA", image.size, (*ImageColor.getrgb(how.background)[:3], 255))
        image = Image.alpha_composite(below, image)
    if image.mode in ("LAB", "HSV", "RGBA"):  # Pillow goes to grey through RGB, or not at all
        image = image.convert("RGB")
    image = image.convert("L" if how.channels == 1 else "RGB")
    if how.size is not None and image.size != how.size[::-1]:
        image = _resized(image, how)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if how.channels == 1 else pixels.permute(2, 0, 1)


def read_header(source: Path | BinaryIO, what: str) -> Header:
    """The header of a picture, without decoding its pixels.

    Raises:
        ValueError: not a picture; the message begins with ``what``.
    """
    with _opened(source, what) as image:
        # Those of an MPO, as phones write, are previews and other views of the same scene.
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        return Header(image.mode in _GREY, several, (image.height, image.width))


@contextmanager
def _opened(source: Path | bytes | BinaryIO, what: str) -> Iterator[Image.Image]:
    """``source`` opened by Pillow, whose errors do not always name the file."""
    try:
        # Not by its name: Pillow maps such a TIFF into memory, and misreads it if it is turned.
        stream = source.open("rb") if isinstance(source, Path) else source
        stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        with stream, Image.open(stream) as image:
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{what}: not an image that Pillow can read") from error
    except Exception as error:  # of a broken file Pillow raises nearly every kind
        raise ValueError(f"{what}: cannot be read as an image ({error})") from error


def _resized(image: Image.Image, how: Decoding) -> Image.Image:
    assert how.size is not None
    size, resample = how.size[::-1], Image.Resampling[how.resample.upper()]
    if how.fit == "crop":
        return ImageOps.fit(image, size, resample)
    if how.fit == "pad":
        return ImageOps.pad(image, size, resample, ImageColor.getcolor(how.background, image.mode))
    return image.resize(size, resample)


def _as_bytes(what: str, image: Image.Image, sixteen_bits: bool) -> Image.Image:
    """A grey image of wide pixels with 8 bits; Pillow's own conversion clips at 255."""
    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    if image.mode == "F":
        if not (low >= 0.0 and high <= 1.0):  # also true of NaN
            raise ValueError(f"{what}: floating pixels must lie in [0, 1]; got [{low:g}, {high:g}]")
        grey = np.rint(pixels * 255.0)
    elif sixteen_bits:
        grey = (pixels.astype(np.int64) + 128) // 257
    elif low >= 0 and high <= 255:
        grey = pixels
    else:
        raise ValueError(
            f"{what}: pixels of 32 bits must lie in [0, 255]; got [{low}, {high}] (0..65535 is "
            "read from files of 16 bits)"
        )
    narrow = Image.fromarray(grey.astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:  # one grey value
        alpha = np.where(pixels == transparent, 0, 255).astype(np.uint8)
        narrow.putalpha(Image.fromarray(alpha))
    return narrow
