"""Writes a file so that it is there whole or not at all, even across a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Make the names in this directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durable(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a new file; on return its bytes are durable, its name not yet. Raises FileExistsError where it exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put the file under its name in one step; on return bytes and name are durable.

    After an error the old file is untouched. If we die half way, it is, too, and `.NAME.<pid>.new` may lie beside it.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    try:
        write_durable(fresh, content, mode=mode)
        fresh.replace(path)
    except OSError:
        # A full disk leaves half a file, which would keep the room that somebody needs to make.
        fresh.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
