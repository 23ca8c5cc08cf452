"""Lets an archive through to GNU tar only as far as it has been found harmless.

The archive may come from anywhere: it must not create, change or delete anything outside the directory it is
restored into. GNU tar refuses `..` in names, strips leading slashes, and makes dangerous symbolic links last; this
is a wall before it, which does not depend on that. What holds after each member that passed:

- every name is relative, without `..`;
- the directory it is in was a member of the same archive before it, so GNU tar has made sure that it is a real one;
- or it is above all members (`srv` where the plan names `srv/www`), and is a real one on disk, or will be made;
- no later member replaces that directory by something else, a symbolic link for instance.

So no name leads through a symbolic link, whatever earlier levels left on disk. The same goes for what a hard link
shares. Symbolic links themselves may point anywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from handlers.contract import printable
from handlers.errors import IntegrityError
from handlers.tools.tar_dumpdir import parse
from handlers.tools.tar_format import BLOCK, END, Header, Malformed, Window, next_member
from handlers.tools.tar_rewrite import without_renames

Renames = Callable[[], None]
"""Moves the directories that the archive says were renamed, before GNU tar sees it."""

MAX_LOOSE = 100_000
"""Members that may be outside all directories of the archive: the plan names each of them."""

_DIRECTORY = "5"
_HARD_LINK = "1"


class Guard:
    """One archive on its way to GNU tar. Memory: the paths of its directories, which GNU tar keeps too."""

    def __init__(self, chunks: Iterator[bytes], target: Path, renames: Renames | None = None) -> None:
        """`renames` is called before anything passes if the archive tells of renamed directories.

        Without it such an archive is refused.
        """
        self._window = Window(chunks)
        self._target = target
        self._renames = renames
        self._directories = {b""}
        self._above = {b""}
        """Those of the directories that are no members themselves."""
        self._loose: set[bytes] = set()
        """Members in such directories that are none."""
        self._last_parent = b""
        self.members = 0
        """Members that have passed."""
        self.bytes_out = 0
        """Bytes of the files among them, as restored."""

    def passed(self) -> Iterator[bytes | memoryview]:
        """The archive for GNU tar, in order. Every chunk ends where the checks have come to.

        Raises IntegrityError naming the member and what is wrong with it; nothing of that member has passed.
        """
        window = self._window
        while True:
            if window.low() and window.at > window.start:
                yield window.take()
            header = next_member(window)
            if header is None:
                break
            self._check(header)
            if not self.members and header.dumpdir is not None and parse(header.dumpdir).renames:
                yield self._moved(header)
            self.members += 1
            self.bytes_out += header.size
            if window.at + header.stored_bytes <= len(window.buffer):
                window.at += header.stored_bytes
            else:
                yield from window.pass_by(header.stored_bytes)
        self._end()
        yield window.take()
        yield END

    def _moved(self, header: Header) -> bytes:
        """The first member without what it tells of renamed directories, once they are moved."""
        if self._renames is None:
            raise _refused(header, "tells of renamed directories")
        self._renames()
        return without_renames(bytes(self._window.take()))

    def _check(self, header: Header) -> None:
        path = header.path
        parent = path.rpartition(b"/")[0]
        if parent != self._last_parent:
            if parent not in self._directories:
                self._admit(header, parent)
            self._last_parent = parent
        if header.type == _DIRECTORY:
            self._check_directory(header)
            return
        if parent in self._above:
            self._loose.add(path)
            if len(self._loose) > MAX_LOOSE:
                raise _refused(header, f"is one of more than {MAX_LOOSE} outside all directories of the archive")
        if path in self._directories:
            raise _refused(header, "takes the place of a directory")
        if header.type == _HARD_LINK:
            shared = header.link
            if shared in self._directories or shared.rpartition(b"/")[0] not in self._directories:
                raise _refused(header, f"is a hard link to {printable(shared)!r}, which is no file of the archive")

    def _check_directory(self, header: Header) -> None:
        self._directories.add(header.path)
        self._above.discard(header.path)
        if header.dumpdir is None:
            return
        try:
            listed = parse(header.dumpdir)
        except Malformed as error:
            raise _refused(header, f"has {error}") from error
        if listed.renames and self.members:
            raise _refused(header, "tells of renamed directories, which only the first member may")

    def _admit(self, header: Header, parent: bytes) -> None:
        """Accept directories that are no members, since the plan names only something below: GNU tar will make them.

        What earlier levels left in their place is on disk to be looked at, and what this archive puts there is known.
        """
        end = 0
        while end < len(parent):
            upper, end = parent[:end], parent.find(b"/", end + 1)
            end = len(parent) if end < 0 else end
            path = parent[:end]
            if path in self._directories:
                continue
            if upper not in self._above or path in self._loose or self._is_in_the_way(path):
                raise _refused(header, f"is in {printable(path)!r}, which is no directory of the archive")
            self._directories.add(path)
            self._above.add(path)

    def _is_in_the_way(self, path: bytes) -> bool:
        try:
            found = os.lstat(os.fsencode(self._target) + b"/" + path)
        except FileNotFoundError:
            return False
        return not stat.S_ISDIR(found.st_mode)

    def _end(self) -> None:
        """Two zero blocks, and nothing but zeros after them."""
        window = self._window
        block = window.block()
        window.need(2 * BLOCK)
        for chunk in window.rest():
            if chunk.count(0) != len(chunk):
                raise IntegrityError(f"archive goes on after its end at block {block}")


def _refused(header: Header, why: str) -> IntegrityError:
    return IntegrityError(f"archive is not safe to restore: member {printable(header.path or b'.')!r} {why}")
