"""Reads what a producer put into a spool, whatever it turns out to be."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import orjson

_REFUSING = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EWOULDBLOCK, errno.ENXIO, errno.EISDIR, errno.ENODEV}
"""What opening it says when the file itself is at fault, not the disk."""

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unfit(ValueError):
    """No file that a request could be in; the text says why."""


def read_message(path: Path, *, max_bytes: int) -> bytes:
    """The file's content. Never follows a link, never waits for the other end of a pipe.

    Raises Unfit for what is no readable regular file of at most max_bytes, OSError for trouble that may pass.
    """
    _check(path.lstat(), max_bytes)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _REFUSING:
            raise Unfit(f"it cannot be read: {error.strerror}; is it readable for the worker's user?") from error
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        # Once more on what was opened: it may have been exchanged since.
        _check(os.fstat(descriptor), max_bytes)
        content = b""
        while chunk := file.read(max_bytes + 1 - len(content)):
            content += chunk
    if len(content) > max_bytes:
        raise Unfit(f"it has more than {max_bytes} bytes")
    return content


def is_whole(content: bytes) -> bool:
    """Whether it could be a request: no beginning of a JSON object is JSON itself."""
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True


def _check(found: os.stat_result, max_bytes: int) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise Unfit(f"it is {_KINDS.get(kind, 'no regular file')}, not a regular file")
    if found.st_size > max_bytes:
        raise Unfit(f"it has {found.st_size} bytes, more than {max_bytes}")
