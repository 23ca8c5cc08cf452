"""Compares a tree on disk with its listing, as two sorted walks side by side."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from handlers.contract import Difference, printable
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from handlers.tools.differing import wrong_attributes
from handlers.tools.sorted_lines import SortedLines
from handlers.tools.trees.mtree import TYPES, Item, items, order
from handlers.tools.trees.reading import LOOK, Asked, Content, Pulse, read_in_order
from handlers.tools.trees.sizes import Sizes
from handlers.tools.trees.walk import NO_MORE_FILES, Found, open_top, walk

_REFUSED = frozenset({errno.EACCES, errno.EPERM})
_RUN_BYTES = 8 << 20
_END = b"\0"


def check(
    directory: Path,
    listing: Iterator[bytes],
    *,
    name: str,
    checkpoint: Callable[[], None],
    report: Callable[[int], None],
) -> tuple[int, int]:
    """Read the whole tree; returns how many names are below its top, and the bytes of its files, each once.

    `listing` is the stored part with the attributes; `name` is the tree's, for messages; `report` is told how many
    more bytes were read. Raises IntegrityError naming the first difference: a name that is missing or should not be
    there, type, size, SHA-256, mode, owner, time of change, target of a link, number of a device. Which names share a
    file is not looked at: a copy of the set may have lost that, and a restore goes by the listing. Raises
    PermanentError for what this user may not read.
    """
    with closing(Sizes()) as sizes:
        files = -1  # the top is none

        def count(item: Item) -> None:
            nonlocal files
            files += 1
            if item.type == "file":
                sizes.add(item.inode, item.size)

        pulse = Pulse(checkpoint, report)
        with closing(_differences(directory, listing, pulse, count, with_owner=True)) as differences:
            for difference in differences:
                raise IntegrityError(f"tree {name}: {difference.path!r} {difference.what}")
        return files, sizes.total()


def compare(
    listing: Iterator[bytes], restored: Path, *, checkpoint: Callable[[], None], report: Callable[[int], None]
) -> Iterator[Difference]:
    """Where a tree that was restored as a whole differs from what the listing says; reads all of it.

    Besides what `check` looks at, names that were one file have to be one file again. Owners only count as root.
    Extended attributes and access lists are in no listing.
    """
    pulse = Pulse(checkpoint, report)
    with closing(_Links()) as links:
        wanted = _differences(restored, listing, pulse, lambda item: None, with_owner=os.geteuid() == 0, links=links)
        with closing(wanted) as differences:
            yield from differences
        yield from links.differences()


class _Pair(NamedTuple):
    """A name with what is wrong with it as far as is known before its content is read."""

    path: bytes
    item: Item | None
    wrong: tuple[str, ...] = ()


def _differences(
    directory: Path,
    listing: Iterator[bytes],
    pulse: Pulse,
    count: Callable[[Item], None],
    *,
    with_owner: bool,
    links: _Links | None = None,
) -> Generator[Difference, None, None]:
    """Every name that is not as it should be; `count` is called with each that is listed."""
    try:
        top = open_top(directory)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise IntegrityError(f"tree {directory} is not there: {error.strerror}") from error
        raise PermanentError(f"cannot read {directory}: {error.strerror}") from error
    try:
        asked = _asked(top, items(listing), with_owner=with_owner, links=links)
        with closing(asked), closing(read_in_order(asked, pulse)) as read:
            for pair, content in read:
                if pair.item is not None:
                    count(pair.item)
                wrong = (*pair.wrong, *_wrong_content(pair, content))
                if wrong:
                    yield Difference(path=printable(pair.path), what="; ".join(wrong))
    except OSError as error:
        raise TemporaryError(f"cannot read {directory}: {error.strerror or error}") from error
    finally:
        os.close(top)


def _asked(
    top: int, listed: Iterator[Item], *, with_owner: bool, links: _Links | None
) -> Generator[Asked[_Pair], None, None]:
    """Both walks, name by name, with each file open that is to be read."""
    about = os.fstat(top)
    unlisted = b""
    item = next(listed, None)
    for found in walk(top):
        while item is not None and order(item.path) < order(found.path):
            yield Asked(_Pair(item.path, item, ("is missing",)), about, None)
            item = next(listed, None)
        if item is None or item.path != found.path:
            if not unlisted or not found.path.startswith(unlisted):
                unlisted = found.path + b"/"
                yield Asked(_Pair(found.path, None, ("should not be there",)), about, None)
            continue
        yield _looked_at(item, found, with_owner=with_owner)
        if links is not None:
            links.add(item, found.about)
        item = next(listed, None)
    while item is not None:
        yield Asked(_Pair(item.path, item, ("is missing",)), about, None)
        item = next(listed, None)


def _looked_at(item: Item, found: Found, *, with_owner: bool) -> Asked[_Pair]:
    """What can be said of a name without reading it, and the open file if there is a reason to read it."""
    about = found.about
    kind = TYPES.get(stat.S_IFMT(about.st_mode), "unknown")
    if kind != item.type:
        return Asked(_Pair(item.path, item, (f"has type {kind}, not {item.type}",)), about, None)
    if found.error is not None:
        return Asked(_Pair(item.path, item, (_unreadable(item.path, found.error),)), about, None)
    wrong = wrong_attributes(
        about,
        size=item.size if item.type == "file" else None,
        mode=None if item.type == "link" else item.mode,
        mtime_ns=item.mtime_ns,
        device=item.device,
        owner=(item.uid, item.gid) if with_owner else None,
    )
    descriptor = None
    try:
        if item.type == "link":
            target = os.readlink(found.name, dir_fd=found.at)
            if target != item.link:
                wrong.append(f"points to {printable(target)!r}, not {printable(item.link or b'')!r}")
        elif item.sha256 is not None and about.st_size == item.size:
            descriptor = os.open(found.name, LOOK, dir_fd=found.at)
    except OSError as error:
        wrong.append(_unreadable(item.path, error))
    return Asked(_Pair(item.path, item, tuple(wrong)), about, descriptor)


def _wrong_content(pair: _Pair, content: Content | OSError | None) -> Iterator[str]:
    if isinstance(content, OSError):
        yield _unreadable(pair.path, content)
    elif content is not None and pair.item is not None:
        if content.changed:
            yield "changed while it was read"
        elif content.sha256 != pair.item.sha256:
            yield f"has SHA-256 {content.sha256}, not {pair.item.sha256}"


def _unreadable(path: bytes, error: OSError) -> str:
    """Words for what is damaged or gone; what is not the tree's fault is raised."""
    if error.errno in _REFUSED:
        raise PermanentError(
            f"cannot read {printable(path)!r}: {error.strerror}", hint="do this as the user that the files belong to"
        ) from error
    if error.errno in NO_MORE_FILES:
        raise error
    return f"cannot be read: {error.strerror}"


class _Links:
    """Which names are one file, by the listing and on the disk."""

    def __init__(self) -> None:
        self._listed = SortedLines(run_bytes=_RUN_BYTES)
        self._there = SortedLines(run_bytes=_RUN_BYTES)

    def add(self, item: Item, about: os.stat_result) -> None:
        """One more name that is listed and there."""
        if item.type == "dir" or (item.inode is None and about.st_nlink < 2):
            return
        listed = b"alone " + item.path if item.inode is None else b"%d" % item.inode
        there = b"%d %d" % (about.st_dev, about.st_ino)
        self._listed.add(listed, there + _END + item.path)
        self._there.add(there, listed + _END + item.path)

    def differences(self) -> Iterator[Difference]:
        """Names that should be one file and are not, and names that are one file and should not be."""
        yield from _torn(self._listed, "is not one file with {!r}")
        yield from _torn(self._there, "should not be one file with {!r}")

    def close(self) -> None:
        """Let go of the temporary files."""
        self._listed.close()
        self._there.close()


def _torn(gathered: SortedLines, words: str) -> Iterator[Difference]:
    before = first = shown = b""
    for key, line in gathered:
        other, _, path = line.partition(_END)
        if key != before:
            before, first, shown = key, other, path
        elif other != first:
            yield Difference(path=printable(path), what=words.format(printable(shown)))
