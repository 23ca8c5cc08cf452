"""Compares a restored tree with what the listings of its chain say."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from handlers.contract import Control, Difference, SetReader, printable
from handlers.tools.deep_tree import ENTER, reached
from handlers.tools.differing import wrong_attributes
from handlers.tools.tar.dumpdir import UNCHANGED
from handlers.tools.tar.index import Member, members, places
from handlers.tools.tar.lookup import TOP, parent_of, uppers
from handlers.tools.tar.moves import moves_between
from handlers.tools.tar.stored_set import TarSet

_DIRECTORY = "d"
_HARD_LINK = "h"
_FILE_TYPES = {
    "-": stat.S_IFREG,
    "C": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "b": stat.S_IFBLK,
    "c": stat.S_IFCHR,
    "p": stat.S_IFIFO,
}
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_MEMBERS_BETWEEN_CHECKPOINTS = 1000
_SECOND = 1_000_000_000


def compare(chain: Sequence[SetReader], restored: Path, control: Control) -> Iterator[Difference]:
    """Where a tree restored from the whole chain differs from what GNU tar listed when it made the sets.

    What it proves when it yields nothing: every member of the last level, and every unchanged file of an older one,
    is there with its type, size, mode, time of change (to the nanosecond), target of a symbolic link, number of a
    device, and for root its owner; what was hard-linked is one file; and no directory holds a name that it did not
    have. What it does not look at: content, which the SHA-256 of each part and frame proves, extended attributes
    and access control lists. A file without an entry in any listing (excluded, unreadable, a socket) is not missed.

    Reads each index once, the last one twice, and the frames with the directories of the last level. Memory grows
    with the number of files that changed within the chain.
    """
    root = os.open(restored, ENTER & ~os.O_NOFOLLOW)
    try:
        comparison = _Comparison([TarSet(reader) for reader in chain], root, control.checkpoint)
        for at in range(len(chain) - 1):
            comparison.older_level(at)
        yield from comparison.last_level()
        yield from comparison.directories()
    finally:
        os.close(root)


class _Comparison:
    """What is known so far about one restored tree."""

    def __init__(self, levels: Sequence[TarSet], root: int, checkpoint: Callable[[], None]) -> None:
        self._levels = levels
        # Asked by paths relative to it: together they may be longer than the kernel takes.
        self._root = root
        self._as_root = os.geteuid() == 0
        self._checkpoint = checkpoint
        self._moves = [moves_between(older, newer) for older, newer in pairwise(levels)]
        self._suspects: dict[bytes, str] = {}
        """Differences from an older level; a newer one may have replaced or deleted the file since."""

    def older_level(self, at: int) -> None:
        """Note what differs from this level, and forget what this level replaced."""
        for member in self._members(at):
            if member.type == _DIRECTORY:
                continue
            path = self._now(member.path, at)
            if path is None:
                continue
            self._suspects.pop(path, None)
            link = None if member.link is None or member.type != _HARD_LINK else self._now(member.link, at)
            what = self._difference(member, path, link)
            if what is not None:
                self._suspects[path] = what

    def last_level(self) -> Iterator[Difference]:
        """What differs from the last level, which says the last word on all its members."""
        for member in self._members(len(self._levels) - 1):
            self._suspects.pop(member.path, None)
            what = self._difference(member, member.path, member.link)
            if what is not None:
                yield Difference(path=printable(member.path), what=what)

    def directories(self) -> Iterator[Difference]:
        """Names that should not be there, and the suspects among the names that did not change."""
        suspects: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for path in self._suspects:
            suspects[parent_of(path)].append(path)
        above = {upper for parent in suspects for upper in (parent, *uppers(parent))}
        known = set()
        last = self._levels[-1]
        for place in places(last.index()):
            if place.type != _DIRECTORY:
                continue
            self._checkpoint()
            if place.path in above:
                known.add(place.path)
            listed = last.dumpdir_at(place.block, place.path)
            if listed is None:
                continue
            names = listed.names()
            prefix = b"" if place.path == TOP else place.path + b"/"
            for name in self._names_in(place.path):
                if name not in names:
                    yield Difference(path=printable(prefix + name), what="should not be there")
            for path in suspects.pop(place.path, ()):
                if names.get(path.rpartition(b"/")[2]) == UNCHANGED:
                    yield Difference(path=printable(path), what=self._suspects[path])

        # In no directory of the last level: files that the plan names, which it did not store again.
        for parent, paths in suspects.items():
            if not any(upper in known for upper in (parent, *uppers(parent))):
                yield from (Difference(path=printable(path), what=self._suspects[path]) for path in paths)

    def _members(self, at: int) -> Iterator[Member]:
        for number, member in enumerate(members(self._levels[at].index())):
            if number % _MEMBERS_BETWEEN_CHECKPOINTS == 0:
                self._checkpoint()
            yield member

    def _now(self, path: bytes, at: int) -> bytes | None:
        """What a path of this level is called at the last one; None when another has taken its name."""
        now: bytes | None = path
        for moves in self._moves[at:]:
            now = moves.after(now) if now is not None and moves else now
        return now

    def _names_in(self, directory: bytes) -> list[bytes]:
        # A directory that is missing or none has been reported with its level.
        try:
            with reached(self._root, directory) as (at, name):
                opened = os.open(name, ENTER, dir_fd=at)
        except OSError as error:
            if error.errno in _NOTHING:
                return []
            raise
        try:
            return sorted(os.fsencode(name) for name in os.listdir(opened))  # noqa: PTH208  # it is open
        finally:
            os.close(opened)

    def _difference(self, member: Member, path: bytes, link: bytes | None) -> str | None:
        """What is wrong with this path, in a few words."""
        found = self._lstat(path)
        if found is None:
            return "is missing"
        if member.type == _HARD_LINK:
            return None if link is None else self._not_shared(found, link)
        if stat.S_IFMT(found.st_mode) != _FILE_TYPES[member.type]:
            return f"has type {stat.filemode(found.st_mode)[0]}, not {member.type}"
        wrong = _attributes(member, found, with_owner=self._as_root)
        if member.type == "l":
            with reached(self._root, path) as (at, name):
                target = os.readlink(name, dir_fd=at)
            if target != member.link:
                wrong.append(f"points to {printable(target)!r}, not {printable(member.link or b'')!r}")
        return "; ".join(wrong) or None

    def _not_shared(self, found: os.stat_result, link: bytes) -> str | None:
        shared = self._lstat(link)
        if shared is None:
            return f"should be one file with {printable(link)!r}, which is missing"
        if os.path.samestat(found, shared):
            return None
        return f"is not one file with {printable(link)!r}"

    def _lstat(self, path: bytes) -> os.stat_result | None:
        """What is there; None for nothing, also where something in the path is no directory any more."""
        try:
            with reached(self._root, path) as (at, name):
                return os.lstat(name, dir_fd=at)
        except OSError as error:
            if error.errno in _NOTHING:
                return None
            raise


def _attributes(member: Member, found: os.stat_result, *, with_owner: bool) -> list[str]:
    """What is wrong with the numbers of a file whose type is right."""
    # GNU tar prints the second before and the second after 1970-01-01 alike.
    alike = abs(member.mtime_ns) < _SECOND and found.st_mtime_ns == -member.mtime_ns
    return wrong_attributes(
        found,
        size=member.size if member.type in "-C" else None,
        mode=None if member.type == "l" else member.mode,
        mtime_ns=found.st_mtime_ns if alike else member.mtime_ns,
        device=member.device,
        owner=(member.uid, member.gid) if with_owner else None,
    )
