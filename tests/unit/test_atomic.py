"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from handlers.tools.atomic import fsync_directory, replace_file, write_durable


def record(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is fsynced and renamed from now on, in order."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def fsynced(descriptor: int) -> None:
        order.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        order.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsynced)
    monkeypatch.setattr(os, "replace", renamed)
    return order


def no_room(_: int) -> None:
    """What a full disk says to an fsync."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_durable_file_is_written_and_fsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes and its mode are the ones asked for."""
    order = record(monkeypatch)

    write_durable(tmp_path / "file", b"\x00content", mode=0o400)

    assert (tmp_path / "file").read_bytes() == b"\x00content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o400
    assert order == ["fsync file"]


def test_a_durable_file_never_overwrites(tmp_path: Path) -> None:
    """The old one stays as it is; a link is not followed."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    for name in ["file", "link"]:
        with pytest.raises(FileExistsError):
            write_durable(tmp_path / name, b"new")

    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None) -> None:
    """Bytes first, then the name, then the directory; nothing is left beside it."""
    if before is not None:
        (tmp_path / "file").write_bytes(before)
    order = record(monkeypatch)

    replace_file(tmp_path / "file", b"new")

    assert (tmp_path / "file").read_bytes() == b"new"
    assert order == [f"fsync .file.{os.getpid()}.new", "rename to file", f"fsync {tmp_path.name}"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes its own half away."""
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", no_room)

    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "file", b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_the_leftover_of_a_dead_process_does_not_get_in_the_way(tmp_path: Path) -> None:
    """Process ids come again."""
    (tmp_path / f".file.{os.getpid()}.new").write_bytes(b"half")

    replace_file(tmp_path / "file", b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


def test_only_a_directory_is_fsynced_as_one(tmp_path: Path) -> None:
    """A wrong path is an error, not a file fsynced by mistake."""
    (tmp_path / "file").write_bytes(b"")

    fsync_directory(tmp_path)

    with pytest.raises(NotADirectoryError):
        fsync_directory(tmp_path / "file")
