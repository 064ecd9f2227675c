"""Arrays of images: found in an ``.npz``, checked, laid out as (N, C, H, W)."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vaekernels.utils.limits import check_room

_IMAGES = ("x_train", "images", "arr_0", "train_images", "x", "data")
_LABELS = ("y_train", "labels", "arr_1", "train_labels", "y")
# Four pixels in a row are likelier than four channels, if there are 1 or 3 elsewhere.
_CHANNELS = ((1, 3), (4,))


@dataclass(frozen=True)
class NpzArrays:
    """What an ``.npz`` holds under the usual names."""

    images: NDArray
    images_name: str
    labels: NDArray | None
    test_images: NDArray | None
    test_labels: NDArray | None


def read_npz(path: Path) -> NpzArrays:
    """The usual arrays of an ``.npz``; pickled objects are refused, never loaded.

    Raises:
        ValueError: truncated, not an ``.npz``, pickled, or no array has a usual name.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("this is a single array (.npy), not an .npz")
        with loaded as file:
            images_name = next((name for name in _IMAGES if name in file), None)
            if images_name is None:
                raise ValueError(
                    f"no images: expected an array named {', '.join(_IMAGES)}; "
                    f"got {', '.join(file.files) or 'an empty file'}"
                )
            labels_name = next((name for name in _LABELS if name in file), None)
            images = _array(file, images_name)
            assert images is not None
            return NpzArrays(
                images=images,
                images_name=images_name,
                labels=_array(file, labels_name),
                test_images=_array(file, "x_test"),
                test_labels=_array(file, "y_test"),
            )
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: not an .npz file, or a truncated one ({error})") from error
    except ValueError as error:
        if "pickle" in str(error):
            raise ValueError(
                f"{path}: holds pickled Python objects, or is not an .npz file; expected plain "
                "numeric arrays (nothing is ever unpickled)"
            ) from error
        raise ValueError(f"{path}: {error}") from error


def _array(file: np.lib.npyio.NpzFile, name: str | None) -> NDArray | None:
    """The array of that name; None where there is none."""
    if name is None or name not in file:
        return None
    try:
        array = file[name]
    except MemoryError as error:  # NumPy's says what it would have needed
        raise ValueError(f"{name}: {error}") from error
    if not isinstance(array, np.ndarray):  # a member that is no .npy is returned as bytes
        raise ValueError(f"{name}: expected an array; got {len(array)} bytes of another kind")
    return array


def to_images(array: NDArray, name: str) -> Tensor:
    """``array`` as (N, C, H, W), uint8 or float32 in [0, 1].

    NHW, NHWC and NCHW are told apart by the size of the channel dim, 1 or 3, else 4; where
    both would do, NHWC is meant.

    Raises:
        ValueError: another dtype, shape or range, or no image at all.
    """
    array = _channels_first(array, name)
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one image and one pixel; got {array.shape}")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype == np.bool_:
        return torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: images must be uint8, bool or floating; got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):  # also true of NaN
        raise ValueError(
            f"{name}: floating images must lie in [0, 1]; got [{low:g}, {high:g}] (bytes 0..255 "
            "are taken as uint8)"
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _channels_first(array: NDArray, name: str) -> NDArray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        for channels in _CHANNELS:
            if array.shape[3] in channels:
                return array.transpose(0, 3, 1, 2)
            if array.shape[1] in channels:
                return array
    raise ValueError(
        f"{name}: images must have shape (N, H, W), (N, H, W, C) or (N, C, H, W) with "
        f"1, 3 or 4 channels; got {array.shape}"
    )


def to_labels(array: NDArray, count: int, name: str) -> Tensor:
    """``array`` as (N,) int64 labels of ``count`` images.

    Raises:
        ValueError: not integers, or not one for each image.
    """
    if not np.issubdtype(array.dtype, np.integer) or array.size != count:
        raise ValueError(
            f"{name}: labels must be {count} integers, one for each image; "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: labels must be below 2**63; got {int(array.max())}")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def resized(images: Tensor, size: tuple[int, int], chunk: int = 1024) -> Tensor:
    """``images`` resized to cover ``size`` (height, width), cropped at the centre."""
    height, width = images.shape[2:]
    if (height, width) == size:
        return images
    count = images.shape[:2].numel() * size[0] * size[1] * images.element_size()
    check_room(f"{len(images)} images of {size[0]} x {size[1]} pixels", count)
    scale = max(size[0] / height, size[1] / width)
    cover = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    top, left = (cover[0] - size[0]) // 2, (cover[1] - size[1]) // 2
    out = images.new_empty(*images.shape[:2], *size)
    for target, part in zip(out.split(chunk), images.split(chunk), strict=True):
        large = functional.interpolate(
            part.float(), size=cover, mode="bilinear", antialias=True, align_corners=False
        )
        crop = large[:, :, top : top + size[0], left : left + size[1]]
        target.copy_(crop.round_() if out.dtype == torch.uint8 else crop)
    return out
