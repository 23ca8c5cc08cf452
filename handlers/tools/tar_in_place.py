"""Takes out of a snapshot file what would make GNU tar believe that a directory was renamed.

GNU tar 1.34 loses files over renamed directories. It goes by inode, so a directory that took the place of another, or
that two directories have swapped, gets the list of names of the wrong one: what is on that list and has old times
counts as stored (`N`). The inodes it then writes into its snapshot are stale, which spoils the next level as well,
and its own restore cannot rename onto a directory that was not empty. A directory which is not in the snapshot is
simply new: it is archived whole, as `mv` across filesystems would have had it. That costs space, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from handlers.errors import IntegrityError

_HEAD_FIELDS = 2
_ENTRY_FIELDS = 6
_INODE, _NAME = 4, 5
_GATHERED = 1000


def directories_in_place(snapshot: Iterable[bytes], root: Path) -> Iterator[bytes]:
    """The snapshot, without every directory that is not where it was: another inode has its name now, or nothing.

    `root` is what GNU tar's `--directory` was and will be. One lstat per directory; memory is bounded. Raises
    IntegrityError for a snapshot of another format than 2, or a torn one.
    """
    fields = _fields(snapshot)
    head = list(islice(fields, _HEAD_FIELDS))
    if len(head) != _HEAD_FIELDS or not head[0].startswith(b"GNU tar-") or b"-2\n" not in head[0]:
        raise IntegrityError(f"snapshot is of an unknown format: {head[:1]!r}")
    kept = head
    place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for field in fields:
            entry = [field, *islice(fields, _ENTRY_FIELDS - 1)]
            names = list(iter(lambda: next(fields, b""), b""))
            if len(entry) != _ENTRY_FIELDS or next(fields, None) != b"":
                raise IntegrityError("snapshot is cut short")
            if _is_in_place(entry[_NAME], entry[_INODE], place):
                kept += [*entry, *names, b"", b""]
            if len(kept) >= _GATHERED:
                yield b"\0".join([*kept, b""])
                kept = []
    finally:
        os.close(place)
    if kept:
        yield b"\0".join([*kept, b""])


def _is_in_place(name: bytes, inode: bytes, root: int) -> bool:
    with suppress(OSError):
        return b"%d" % os.lstat(name, dir_fd=root).st_ino == inode
    return False


def _fields(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *fields, rest = (rest + chunk).split(b"\0")
        yield from fields
    if rest:
        raise IntegrityError("snapshot is cut short")
