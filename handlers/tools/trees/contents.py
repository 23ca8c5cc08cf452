"""Looks into a tree of a committed set: attributes as the files themselves have them, content as the listing tells."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path

from handlers.contents import Entry, EntryType
from handlers.contract import BackupId, ProblemKind, printable
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.deep_tree import NO_DIRECTORY
from handlers.tools.sorted_lines import SortedLines
from handlers.tools.tar.archive_format import Malformed, checked_path
from handlers.tools.trees.mtree import TOP, Item
from handlers.tools.trees.reading import LOOK, PIECE_BYTES
from handlers.tools.trees.steps import Steps, split
from handlers.tools.trees.table import ListingTable
from handlers.tools.trees.walk import open_top, walk

MAX_CHECKED_BYTES = 64 << 20
"""A longer file is not read as a whole for a part of it."""

_REMEMBERED = 1024
"""Files of which it is remembered that they are as they were written."""

_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
}
_DEVICES = frozenset({EntryType.BLOCK_DEVICE, EntryType.CHARACTER_DEVICE})
_NOTHING = frozenset({errno.ENOENT, errno.ENXIO}) | NO_DIRECTORY
"""What opening says where there is no such file or directory."""
_NUMBERS = 8
_NAMES_BETWEEN_CHECKPOINTS = 1000
_END = b"\0"


class TreeContents:
    """What a tree holds, see `handlers.contents.Contents`. No symbolic link is followed on any step of a path."""

    def __init__(
        self,
        tree: Path,
        listing: Callable[[], Iterable[bytes]],
        held_by: BackupId,
        checkpoint: Callable[[], None],
    ) -> None:
        """`listing` opens the stored part with the attributes; it is read when the first file is."""
        self._tree = tree
        self._listing = listing
        self._held_by = held_by
        self._checkpoint = checkpoint
        self._sound: dict[tuple[int, ...], None] = {}
        self.bytes_read = 0
        """Stored bytes that were fetched so far, those of the listing left out."""

    def look(self, path: bytes) -> tuple[Entry, Iterator[Entry]] | None:
        """What is at this path, and in it. Memory grows with the number of names in the directory."""
        path = _checked(path)
        directory, name = split(path)
        with self._directory(directory) as at:
            entry = None if at is None else self._entry(at, name or TOP, path)
        if entry is None:
            return None
        return entry, iter(self._inside(path) if entry.type is EntryType.DIRECTORY else ())

    def walk(self, directory: bytes) -> Iterator[Entry]:
        """All below a directory; sorted in a temporary file, where they are many."""
        directory = _checked(directory)
        prefix = b"" if directory == TOP else directory + b"/"
        with closing(SortedLines()) as gathered:
            with self._directory(directory) as top:
                for number, found in enumerate(walk(top) if top is not None else ()):
                    if number % _NAMES_BETWEEN_CHECKPOINTS == 0:
                        self._checkpoint()
                    if found.error is not None:
                        raise _failure(prefix + found.path, found.error)
                    target = _target(found.at, found.name, found.about)
                    if found.path != TOP and target is not None:
                        above, name = split(prefix + found.path)
                        key = b"" if above == TOP else above
                        gathered.add(key + _END + name, _line(found.about, target))
            for key, line in gathered:
                above, _, name = key.partition(_END)
                yield self._read_entry(above + b"/" + name if above else name, line)

    def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The content of a regular file, holes as zeros.

        The file has to have the size and the time of change that the listing tells of. If all of it is asked for, or it
        has at most MAX_CHECKED_BYTES, its SHA-256 is compared with the listing's before anything is yielded, which
        reads it once more; not so if that was done before and nothing has touched the file since. Of a part of a longer
        file nothing else is checked. Raises IntegrityError, at the end also for a file that changed meanwhile.
        """
        if entry.type is not EntryType.FILE or entry.missing is not None:
            raise ValueError(f"{entry.path!r} has no content")
        return self._content(entry, offset, entry.size if length is None else length)

    def _content(self, entry: Entry, offset: int, length: int) -> Iterator[bytes]:
        item = self._table.find(entry.path)
        directory, name = split(entry.path)
        with self._directory(directory) as at:
            file = None if at is None else _opened(at, name, entry.path)
        if file is None:
            raise IntegrityError(f"{printable(entry.path)!r} of set {self._held_by} has gone")
        try:
            about = os.fstat(file)
            self._require(entry.path, item, about)
            assert item is not None
            if about.st_size <= MAX_CHECKED_BYTES or (offset == 0 and length >= about.st_size):
                self._require_sound(file, item, about)
            end = min(about.st_size, offset + length)
            while offset < end:
                piece = os.pread(file, min(PIECE_BYTES, end - offset), offset)
                if not piece:
                    break
                self.bytes_read += len(piece)
                offset += len(piece)
                yield piece
            if _version(os.fstat(file)) != _version(about):
                raise IntegrityError(f"{printable(entry.path)!r} of set {self._held_by} changed while it was read")
        except OSError as error:
            raise _failure(entry.path, error) from error
        finally:
            os.close(file)

    @cached_property
    def _table(self) -> ListingTable:
        return ListingTable(self._listing())

    def _require(self, path: bytes, item: Item | None, about: os.stat_result) -> None:
        """The file has to be the one that is listed, by all that is known without reading it."""
        shown = f"{printable(path)!r} of set {self._held_by}"
        if item is None or item.type != "file":
            raise IntegrityError(f"{shown} is not listed as a file")
        if not stat.S_ISREG(about.st_mode):
            raise IntegrityError(f"{shown} is no regular file any more")
        if (about.st_size, about.st_mtime_ns) != (item.size, item.mtime_ns):
            raise IntegrityError(
                f"{shown} has {about.st_size} bytes and was changed at {about.st_mtime_ns} ns, its listing says "
                f"{item.size} bytes and {item.mtime_ns} ns"
            )
        if item.sha256 is None:
            raise PermanentError(f"{shown} could not be read when the set was made")

    def _require_sound(self, file: int, item: Item, about: os.stat_result) -> None:
        version = _version(about)
        if version in self._sound:
            return
        digest = hashlib.sha256()
        at = 0
        while piece := os.pread(file, PIECE_BYTES, at):
            self._checkpoint()
            digest.update(piece)
            at += len(piece)
        self.bytes_read += at
        if digest.hexdigest() != item.sha256:
            raise IntegrityError(
                f"{printable(item.path)!r} of set {self._held_by} has SHA-256 {digest.hexdigest()}, "
                f"its listing says {item.sha256}"
            )
        self._sound[version] = None
        if len(self._sound) > _REMEMBERED:
            del self._sound[next(iter(self._sound))]

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int | None]:
        """The open directory; None where there is none. What fails on the way to it, or in it, is told by our words."""
        try:
            top = open_top(self._tree)
        except OSError as error:
            if error.errno in _NOTHING:
                raise IntegrityError(f"set {self._held_by} lacks its tree {self._tree.name}") from error
            raise _failure(TOP, error) from error
        try:
            with closing(Steps(top)) as steps:
                try:
                    at = steps.to(path)
                except OSError as error:
                    if error.errno not in _NOTHING:
                        raise
                    at = None
                yield at
        except OSError as error:
            raise _failure(path, error) from error
        finally:
            os.close(top)

    def _inside(self, path: bytes) -> Iterator[Entry]:
        with self._directory(path) as at:
            names = [] if at is None else sorted(os.fsencode(name) for name in os.listdir(at))  # noqa: PTH208  # open
            prefix = b"" if path == TOP else path + b"/"
            found = [self._entry(at or 0, name, prefix + name) for name in names]
        return (entry for entry in found if entry is not None)

    def _entry(self, at: int, name: bytes, path: bytes) -> Entry | None:
        try:
            about = os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return None
        target = _target(at, name, about)
        return None if target is None else self._read_entry(path, _line(about, target))

    def _read_entry(self, path: bytes, line: bytes) -> Entry:
        *numbers, target = line.split(b" ", _NUMBERS)
        mode, size, uid, gid, mtime_ns, rdev, device, inode = map(int, numbers)
        kind = _TYPES.get(stat.S_IFMT(mode), EntryType.UNKNOWN)
        return Entry(
            path,
            kind,
            size if kind is EntryType.FILE else 0,
            stat.S_IMODE(mode),
            uid,
            gid,
            mtime_ns,
            target if kind is EntryType.SYMLINK else None,
            (os.major(rdev), os.minor(rdev)) if kind in _DEVICES else None,
            self._held_by,
            (device, inode, b""),
            missing=ProblemKind.SOCKET if kind is EntryType.UNKNOWN else None,
        )


def _line(about: os.stat_result, target: bytes) -> bytes:
    """What an entry is made of, its path left out."""
    return b"%d %d %d %d %d %d %d %d %b" % (
        about.st_mode,
        about.st_size,
        about.st_uid,
        about.st_gid,
        about.st_mtime_ns,
        about.st_rdev,
        about.st_dev,
        about.st_ino,
        target,
    )


def _target(at: int, name: bytes, about: os.stat_result) -> bytes | None:
    """What a symbolic link says, nothing for any other file; None for a link that has gone meanwhile."""
    if not stat.S_ISLNK(about.st_mode):
        return b""
    try:
        return os.readlink(name, dir_fd=at)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return None
        raise


def _opened(at: int, name: bytes, path: bytes) -> int | None:
    try:
        return os.open(name, LOOK, dir_fd=at)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise _failure(path, error) from error


def _version(about: os.stat_result) -> tuple[int, ...]:
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _checked(path: bytes) -> bytes:
    try:
        return checked_path(path) or TOP
    except Malformed as error:
        raise PermanentError(
            f"{printable(path)!r} can be in no set: {error}", hint="give the path relative to the subject"
        ) from error


def _failure(path: bytes, error: OSError) -> PermanentError | IntegrityError:
    shown = printable(path)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermanentError(
            f"cannot read {shown!r}: {error.strerror}", hint="do this as the user that the files belong to"
        )
    return IntegrityError(f"cannot read {shown!r}: {error.strerror}")
