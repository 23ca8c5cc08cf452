"""Takes out of a snapshot file what would make GNU tar believe that a directory was renamed.

GNU tar 1.34 loses files over renamed directories. It goes by inode, so a directory that took the place of another, or
that two directories have swapped, gets the list of names of the wrong one: what is on that list and has old times
counts as stored (`N`). The inodes it then writes into its snapshot are stale, which spoils the next level as well,
and its own restore cannot rename onto a directory that was not empty. A directory which is not in the snapshot is
simply new: it is archived whole, as `mv` across filesystems would have had it. That costs space, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from handlers.tools.tar.records import END, Record, Records

_GATHERED = 1000
_TICK_NS = 100_000_000


def directories_in_place(
    snapshot: Iterable[bytes],
    root: Path,
    *,
    since: Callable[[int], int] = lambda time_ns: time_ns,
    out_of_place: Callable[[Record], object] = lambda record: None,
    changed: Callable[[Record], object] = lambda record: None,
) -> Iterator[bytes]:
    """The snapshot, without every directory that is not where it was: another inode has its name now, or nothing.

    `root` is what GNU tar's `--directory` was and will be; `since` may give another time than the snapshot's own, and
    `out_of_place` gets what is left out, `changed` what is kept but was changed since. One lstat per directory; memory
    is bounded. Raises IntegrityError for a snapshot of another format than 2, or a torn one.
    """
    records = Records(snapshot)
    kept = [records.head(since(records.time_ns))]
    place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for record in records:
            found = _in_place(record, place)
            if found is not None:
                kept += [record.raw, END]
                # The kernel's stamps may be some milliseconds behind the clock that the snapshot's time is from.
                if found.st_ctime_ns >= records.time_ns - _TICK_NS:
                    changed(record)
            else:
                out_of_place(record)
            if len(kept) >= _GATHERED:
                yield b"".join(kept)
                kept = []
    finally:
        os.close(place)
    if kept:
        yield b"".join(kept)


def _in_place(record: Record, root: int) -> os.stat_result | None:
    with suppress(OSError):
        found = os.lstat(record.name, dir_fd=root)
        if b"%d" % found.st_ino == record.inode:
            return found
    return None
