"""Goes on with what an earlier attempt has brought of a peer."""

from __future__ import annotations

import os
import stat
from contextlib import closing

from handlers.tools.deep_tree import ENTER, Way
from handlers.tools.peers.files import our_disk
from handlers.tools.removal import remove_at


def adopt(leftover: int, name: bytes, tree: int) -> bool:
    """Move what an earlier attempt has brought of a peer into the tree; whether there is anything.

    Nothing in it is vouched for, but that it is directories and files with a single name each. Raises OurDisk.
    """
    try:
        top = os.open(name, ENTER, dir_fd=leftover)
    except OSError:
        return False
    with our_disk(name):
        try:
            _sift(top)
        finally:
            os.close(top)
        os.rename(name, name, src_dir_fd=leftover, dst_dir_fd=tree)
    return True


def _sift(top: int) -> None:
    """Remove all but directories and plain files."""
    with closing(Way(top)) as way:
        pending = [_sifted(way.here)]
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                pending.append(way.enter(name, _sifted))
                continue
            pending.pop()
            if pending:
                way.leave()


def _sifted(directory: int) -> list[bytes]:
    os.fchmod(directory, 0o700)
    directories = []
    with os.scandir(directory) as found:
        entries = list(found)
    for entry in entries:
        name = os.fsencode(entry.name)
        if entry.is_dir(follow_symlinks=False):
            directories.append(name)
            continue
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            remove_at(directory, name)
    return directories
