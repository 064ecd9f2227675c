"""A folder of images whose files are decoded when a batch needs them."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from tqdm import tqdm

from vaekernels.data.dataset import Batch, map_in_order
from vaekernels.data.decode import Decoding, Header, decode, read_header
from vaekernels.utils.limits import check_room

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
# Bytes at the beginning and the end of a file that are part of its fingerprint.
_SAMPLED = 4096
# Files left out that a warning names.
_NAMED = 3


@dataclass(frozen=True)
class Stamp:
    """The state of a file: size in bytes, time of modification, and a digest of a sample."""

    size: int
    mtime_ns: int
    sample: bytes


@dataclass(frozen=True)
class ImageFolder:
    """A dataset of the image files below a folder, made by :func:`scan_folder`.

    Nothing is kept of an image that was decoded: at any time, there are the images of one batch,
    and with worker processes of two more for each. A file that vanished or changed since the scan
    (by its size and time of modification) is an error that names it.

    Attributes:
        name: the folder as it was given, for messages.
        root: its absolute path, so that the working directory may change.
        shape: channels, height and width of every image.
        ids: (N,) int64: for each position, the place in ``files``.
        labels: (N,) int64, or None.
        files: paths relative to the folder, in sorted order.
        stamps: of each file, its state at the time of the scan.
        decoding: how a file becomes a tensor.
        workers: processes that decode; 0: the calling process does.
        strict: whether a broken file was an error of the scan.
        skipped: ``"path (reason)"`` of each file left out.
        heldout: None: a folder has no held-out images of its own.
    """

    name: str
    root: Path
    shape: tuple[int, int, int]
    ids: Tensor
    labels: Tensor | None
    files: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    decoding: Decoding
    workers: int = 0
    strict: bool = True
    skipped: tuple[str, ...] = ()
    heldout: None = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of ``load_images`` that read the folder again."""
        return {
            "background": self.decoding.background,
            "strict": self.strict,
            "workers": self.workers,
            "lazy": True,
        }

    def __len__(self) -> int:
        return len(self.ids)

    def get(self, index: Tensor) -> Batch:
        """Decode the images at the positions ``index``: ``x`` is (B, C, H, W) uint8.

        Raises:
            ValueError: a file cannot be decoded, has another size than the first, or is not the
                one that was scanned.
        """
        ids = self.ids[index]
        x = torch.empty(len(ids), *self.shape, dtype=torch.uint8)
        if get_worker_info() is not None:
            # Saves a copy; and where private batches are copied, the heap of a worker grows.
            x.share_memory_()
        for row, i in zip(x, ids.tolist(), strict=True):
            row.copy_(self._decode(i))
        return Batch(x, None if self.labels is None else self.labels[index], ids)

    def take(self, index: Tensor | slice) -> ImageFolder:
        """The dataset of the images at ``index``."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, ids=self.ids[index], labels=labels)

    def everything(self) -> ImageFolder:
        """The dataset itself."""
        return self

    def fingerprint(self) -> str:
        """``files:`` and a SHA-256 of how files are decoded and, for each in order, of its path
        relative to the folder, its size, and its first and last 4 KiB.

        A copy of the folder has the same fingerprint. A change that keeps the size, the beginning
        and the end of a file is not found.
        """
        how = self.decoding
        decoded = repr((self.shape, how.fit, how.resample, how.background))
        digest = hashlib.sha256(decoded.encode())
        for i in self.ids.tolist():
            digest.update(os.fsencode(self.files[i]) + b"\0" + self.stamps[i].sample)
        return f"files:{digest.hexdigest()}"

    def _decode(self, i: int) -> Tensor:
        path = self.root / self.files[i]
        try:
            image = decode(path, self.decoding)
        finally:  # also where it explains why the file cannot be decoded
            _check_unchanged(path, self.stamps[i])
        if tuple(image.shape) != self.shape:
            raise _unequal(path, tuple(image.shape[1:]), self)
        return image


def scan_folder(
    folder: Path,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    background: str = "white",
    strict: bool = True,
    workers: int = 0,
) -> ImageFolder:
    """Find the images below ``folder``, in sorted order, and read the header of each.

    Links to folders are not followed. The labels are the numbers of the sorted subfolders when
    every image lies in one and there are at least two. What is left out is named in a warning, as
    are animations, of which the first frame is read.

    Args:
        folder: where to look, with its subfolders.
        size: (height, width) to resize to; None: the images must have one size.
        channels: 1 (grey) or 3 (RGB); None: grey if all images are.
        background: the colour below transparent pixels.
        strict: a file that cannot be decoded is an error: here, if its header is broken, else of
            ``get``. Otherwise, every file is decoded once, and those that cannot be are left out.
        workers: processes that read and decode; 0: the calling process does.

    Raises:
        ValueError: no image, a file that is not an image, or unequal sizes without ``size``.
        OSError: a subfolder cannot be read.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"data {folder}: a folder is read with 1 or 3 channels; got {channels}")
    if workers < 0:
        raise ValueError(f"workers must not be negative; got {workers}")
    decoding = Decoding(channels or 3, size, background=background)
    files, skipped = _find(folder)
    if not files:
        raise ValueError(f"data {folder}: no image in this folder ({', '.join(sorted(_SUFFIXES))})")
    if size is not None:
        check_room(
            f"data {folder}: an image of {size[0]} x {size[1]} pixels", 3 * size[0] * size[1]
        )
    inspect = partial(_inspect, folder, strict)
    found = map_in_order(inspect, files, workers)
    bar = tqdm(found, "scanning", len(files), unit=" images", leave=False, disable=None)
    kept: list[tuple[str, Header, Stamp]] = []
    for name, result in zip(files, bar, strict=True):
        if isinstance(result, str):
            skipped.append(f"{name} ({result})")
        else:
            kept.append((name, *result))
    if skipped:
        skipped.sort()
        more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        warnings.warn(
            f"data {folder}: {len(skipped)} left out: {', '.join(skipped[:_NAMED])}{more}",
            stacklevel=3,
        )
    if not kept:
        raise ValueError(f"data {folder}: none of its {len(files)} images can be read")
    names, headers, stamps = zip(*kept, strict=True)
    if channels is None and all(header.grey for header in headers):
        decoding = replace(decoding, channels=1)
    height, width = decode(folder / names[0], decoding).shape[1:]
    data = ImageFolder(
        name=str(folder),
        root=folder.absolute(),
        shape=(decoding.channels, height, width),
        ids=torch.arange(len(names)),
        labels=_labels(names),
        files=names,
        stamps=stamps,
        decoding=decoding,
        workers=workers,
        strict=strict,
        skipped=tuple(skipped),
    )
    for name, header in zip(names, headers, strict=True):
        # An EXIF orientation, which costs more to read, may exchange height and width.
        if size is None and sorted(header.size) != sorted((height, width)):
            raise _unequal(folder / name, header.size, data)
    animated = [name for name, header in zip(names, headers, strict=True) if header.several]
    if animated:
        warnings.warn(
            f"data {folder}: {len(animated)} of {len(names)} files have several frames or pages, "
            f"as {animated[0]}; the first of each is read",
            stacklevel=3,
        )
    return data


def _find(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted paths of image files relative to ``folder``, and what is left out, with a reason."""
    images, others = [], []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        links = [path for path in (Path(parent, name) for name in folders) if path.is_symlink()]
        others += [(path, "a link to a folder") for path in links]
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() not in _SUFFIXES:
                others.append((path, "not named as an image"))
            elif not path.is_file():
                others.append((path, "not a file, or a broken link"))
            else:
                images.append(path.relative_to(folder))
    skipped = [f"{path.relative_to(folder).as_posix()} ({reason})" for path, reason in others]
    return [path.as_posix() for path in sorted(images)], skipped


def _raise(error: OSError) -> None:
    raise error


def _inspect(folder: Path, strict: bool, name: str) -> tuple[Header, Stamp] | str:
    """Header and state of a file; if not ``strict``, a string says why it cannot be decoded."""
    path = folder / name
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            digest = hashlib.sha256(str(status.st_size).encode() + stream.read(_SAMPLED))
            stream.seek(max(0, status.st_size - _SAMPLED))
            digest.update(stream.read(_SAMPLED))
            stream.seek(0)
            header = read_header(stream, str(path))
        if not strict:
            decode(path, Decoding())
    except (ValueError, OSError) as error:
        if strict:
            raise
        return str(error).removeprefix(f"{path}: ")
    return header, Stamp(status.st_size, status.st_mtime_ns, digest.digest()[:16])


def _check_unchanged(path: Path, stamp: Stamp) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(
            f"{path}: the file has vanished since the folder was scanned ({error.strerror})"
        ) from error
    if (status.st_size, status.st_mtime_ns) != (stamp.size, stamp.mtime_ns):
        raise ValueError(
            f"{path}: the file has changed since the folder was scanned (then {stamp.size} bytes, "
            f"now {status.st_size}, or a newer time of modification)"
        )


def _unequal(path: Path, size: tuple[int, ...], data: ImageFolder) -> ValueError:
    return ValueError(
        f"{path}: image of {size[0]} x {size[1]} pixels, but {Path(data.name, data.files[0])} has "
        f"{data.shape[1]} x {data.shape[2]}; give one size with --image-size"
    )


def _labels(names: tuple[str, ...]) -> Tensor | None:
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = {top: number for number, top in enumerate(sorted(set(tops)))}
    if "" in classes or len(classes) < 2:
        return None
    return torch.tensor([classes[top] for top in tops])
