"""Lets an archive through to GNU tar only as far as it has been found harmless.

The archive may come from anywhere: it must not create, change or delete anything outside the directory it is
restored into. GNU tar refuses `..` in names, strips leading slashes, and makes dangerous symbolic links last; this
is a wall before it, which does not depend on that. What holds after each member that passed:

- every name is relative, without `..`;
- the directory it is in was a member of the same archive before it, so GNU tar has made sure that it is a real one;
- or it is above all members (`srv` where the plan names `srv/www`), or could not be read, and is a real one on disk,
  or will be made;
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
from handlers.tools.deep_tree import ENTER
from handlers.tools.tar.access import attribute_names, numbered_lists
from handlers.tools.tar.archive_format import ACL, BLOCK, END, MAX_PAX_BYTES, Header, Malformed, Window, next_member
from handlers.tools.tar.dumpdir import parse
from handlers.tools.tar.rewrite import records_of, rewritten, without_renames

Renames = Callable[[], None]
"""Moves the directories that the archive says were renamed, before GNU tar sees it."""

MAX_LOOSE = 100_000
"""Members that may be outside all directories of the archive: the plan names each of them."""

MAX_PATH_BYTES = 4090
"""Longer ones than that GNU tar cannot restore: with `./` before and `/` behind they are more than PATH_MAX."""

_DIRECTORY = "5"
_HARD_LINK = "1"
_LINKS = {_HARD_LINK, "2"}


class TooLong(Exception):
    """A member's path is longer than GNU tar can restore. Nothing of that member has passed."""


class Guard:
    """One archive on its way to GNU tar. Memory: the paths of its directories, which GNU tar keeps too."""

    def __init__(
        self, chunks: Iterator[bytes], target: Path, renames: Renames | None = None, *, of_any_length: bool = False
    ) -> None:
        """`renames` is called before anything passes if the archive tells of renamed directories.

        Without it such an archive is refused. `of_any_length`: let paths pass that GNU tar cannot restore.
        """
        self._window = Window(chunks)
        self._target = target
        self._renames = renames
        self._longest = MAX_PAX_BYTES if of_any_length else MAX_PATH_BYTES
        self._directories = {b""}
        self._above = {b""}
        """Those of the directories that are no members themselves."""
        self._loose: set[bytes] = set()
        """Members in such directories that are none."""
        self._links: set[bytes] = set()
        """Members that are links, or the first of them."""
        self._last_parent = b""
        self.members = 0
        """Members that have passed."""
        self.bytes_out = 0
        """Bytes of the files among them, as restored."""
        self.has_lists = False
        """Whether a member had an access control list."""
        self.directory_attributes: dict[bytes, tuple[bytes, ...]] = {}
        """Extended attributes by directory, for those that have some; empty path for the top."""

    def passed(self) -> Iterator[bytes | memoryview]:
        """The archive for GNU tar, in order. Every chunk ends where the checks have come to.

        Raises IntegrityError naming the member and what is wrong with it, or TooLong; nothing of it has passed.
        """
        window = self._window
        while True:
            if window.low() and window.at > window.start:
                yield window.take()
            before = window.at - window.start
            header = next_member(window)
            if header is None:
                break
            self._check(header)
            if len(header.path) > self._longest:
                raise TooLong(printable(header.path))
            renames = not self.members and header.dumpdir is not None and bool(parse(header.dumpdir).renames)
            if renames or header.attributes:
                taken = bytes(window.take())
                yield taken[:before]
                headers = taken[before:]
                yield self._moved(header, headers) if renames else self._by_number(header, headers)
            self.members += 1
            self.bytes_out += header.size
            if window.at + header.stored_bytes <= len(window.buffer):
                window.at += header.stored_bytes
            else:
                yield from window.pass_by(header.stored_bytes)
        self._end()
        yield window.take()
        yield END

    def _moved(self, header: Header, headers: bytes) -> bytes:
        """The first member without what it tells of renamed directories, once they are moved."""
        if self._renames is None:
            raise _refused(header, "tells of renamed directories")
        self._renames()
        return self._by_number(header, without_renames(headers))

    def _by_number(self, header: Header, headers: bytes) -> bytes:
        """The headers with access lists that name users and groups by number, as all owners are restored."""
        if header.type == _DIRECTORY and (names := attribute_names(header.attributes)):
            self.directory_attributes[header.path] = names
        self.has_lists = self.has_lists or any(key.startswith(ACL) for key in header.attributes)
        try:
            changes = numbered_lists(records_of(headers))
        except Malformed as error:
            raise _refused(header, f"has {error}") from error
        return rewritten(headers, changes) if changes else headers

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
        if header.type in _LINKS and len(self._links) <= MAX_LOOSE:
            self._links.add(path)
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
        """Accept directories that are no members: GNU tar will make them.

        The plan names only something below, or GNU tar could not read the directory itself. What earlier levels left in
        their place is on disk to be looked at, and what this archive puts there is known: of a directory above all
        members everything, of any other the links. Anything else stops GNU tar, and leads nowhere.
        """
        end = 0
        while end < len(parent):
            upper, end = parent[:end], parent.find(b"/", end + 1)
            end = len(parent) if end < 0 else end
            path = parent[:end]
            if path in self._directories:
                continue
            known = self._loose if upper in self._above else self._links
            if path in known or len(known) > MAX_LOOSE or self._is_in_the_way(path):
                raise _refused(header, f"is in {printable(path)!r}, which is no directory of the archive")
            self._directories.add(path)
            self._above.add(path)

    def _is_in_the_way(self, path: bytes) -> bool:
        # Not by the whole path, which may be longer than the kernel takes.
        try:
            top = os.open(self._target, ENTER & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            return not stat.S_ISDIR(os.lstat(path, dir_fd=top).st_mode)
        except FileNotFoundError:
            return False
        finally:
            os.close(top)

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
