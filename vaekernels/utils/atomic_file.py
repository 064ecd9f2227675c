"""Atomic file writes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeGuard

# Errors of the disk, which a write to an open file raises without a file name.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write ``path`` through a temporary file in the same folder, which is renamed when complete.

    The file and its folder are flushed to disk when the block ends, so that after a crash ``path``
    has either the old content or the new one. On an error, KeyboardInterrupt included, the
    temporary file is removed and ``path`` is unchanged.

    Args:
        path: the file to write or replace; its folder must exist.

    Yields:
        The temporary file, open for binary writing; its path is ``file.name``.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the error names
            ``path``.

    Example:
        >>> with atomic_write("config.json") as file:
        ...     file.write(b"{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Not tempfile.mkstemp, whose files are readable only by their owner.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if _is_write_error(error, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    _flush_folder(path.parent)


def _is_write_error(error: BaseException, temporary: Path) -> TypeGuard[OSError]:
    """Whether writing the temporary file failed, and not other code of the caller's block."""
    if not isinstance(error, OSError):
        return False
    if error.filename is None:
        return error.errno in _DISK_ERRORS
    return error.filename == str(temporary)


def _flush_folder(folder: Path) -> None:
    """Flush the rename to disk."""
    if os.name == "nt":  # Windows cannot open a folder.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
