"""``atomic_write`` leaves the old content or the new one, and no temporary files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from vaekernels.utils.atomic_file import atomic_write


def test_writes_through_a_file_in_the_same_folder(tmp_path: Path) -> None:
    target = tmp_path / "data.bin"
    with atomic_write(target) as file:
        file.write(b"new")
        assert not target.exists()
        assert Path(file.name).parent == tmp_path
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["data.bin"]


def test_replaces(tmp_path: Path) -> None:
    target = tmp_path / "data.bin"
    target.write_bytes(b"old, and longer")
    with atomic_write(str(target)) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old, and longer"
    assert target.read_bytes() == b"new"


def test_flushes_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    with atomic_write(tmp_path / "data.bin") as file:
        file.write(b"new")
    assert flushed == [False, True]


def test_the_file_is_complete_when_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's buffer is flushed before fsync, and the rename follows."""
    target, seen = tmp_path / "data.bin", []

    def fsync(descriptor: int) -> None:
        info = os.fstat(descriptor)
        seen.append("folder" if stat.S_ISDIR(info.st_mode) else info.st_size)
        seen.append(target.exists())

    monkeypatch.setattr(os, "fsync", fsync)
    for size in (0, 3, 100_000):
        seen.clear()
        target.unlink(missing_ok=True)
        with atomic_write(target) as file:
            file.write(bytes(size))
        assert seen == [size, False, "folder", True]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), OSError("network")])
def test_error_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "data.bin"
    target.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data.bin"]


def test_full_disk_is_named(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    target = tmp_path / "data.bin"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError) as caught, atomic_write(target) as file:
            file.write(bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(target)
    assert os.listdir(tmp_path) == []


def test_missing_folder_is_named(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "data.bin"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(target):
        pass
    assert caught.value.filename == str(target)


def test_a_file_as_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    target = tmp_path / "plain" / "data.bin"
    with pytest.raises(NotADirectoryError) as caught, atomic_write(target):
        pass
    assert caught.value.filename == str(target)


@pytest.mark.skipif(os.name == "nt", reason="no umask")
def test_permissions_are_those_of_open(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
