"""Unpacks an archive below one directory without GNU tar: a full backup, or members that were picked.

Every name is taken one step at a time from the target on, and no step follows a symbolic link; nothing that exists is
opened for writing or replaced. So nothing outside the target can be changed, whatever the archive holds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from handlers.contract import Control, printable
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from handlers.tools.deep_tree import ENTER
from handlers.tools.dressing import Dress, Unset, dress, dress_unopened
from handlers.tools.tar.archive_format import BLOCK, Header, Window, next_member, sparse_map
from handlers.tools.tar.pax_attributes import attribute_of
from handlers.tools.tar.rewrite import records_of

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BILLION = 1_000_000_000


class _About(NamedTuple):
    """What its headers say of a member, besides its content."""

    dress: Dress
    device: tuple[int, int]


def unpack(chunks: Iterable[bytes | memoryview], target: Path, control: Control, unset: Unset) -> None:
    """Unpack the archive, which a guard lets through, below target, which exists and is empty.

    What the chunks raise passes through. Raises TemporaryError when the disk is full, PermanentError naming what could
    not be made for another reason, IntegrityError for a member that is there twice or leads through a link.
    """
    window = Window(bytes(chunk) for chunk in chunks)
    top = os.open(target, ENTER & ~os.O_NOFOLLOW)
    unpacking = _Unpacking(top, unset)
    try:
        while (header := next_member(window)) is not None:
            control.checkpoint()
            try:
                unpacking.member(header, bytes(window.take()), window, control.checkpoint)
            except OSError as error:
                raise _failure(header.path, error) from error
        for _ in window.rest():
            control.checkpoint()
        unpacking.finish(control.checkpoint)
    finally:
        unpacking.close()


class _Unpacking:
    """What is known of the tree as it grows: one entry for each directory, as GNU tar keeps too."""

    def __init__(self, top: int, unset: Unset) -> None:
        self._top = top
        self._unset = unset
        self._here = b""
        self._descriptor = os.dup(top)
        self._directories: list[tuple[bytes, _About]] = []

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._top)

    def member(self, header: Header, headers: bytes, window: Window, checkpoint: Callable[[], None]) -> None:
        """Make one file of any type; the window is at its content, and behind it afterwards."""
        about = _about(header, headers)
        upper, _, name = header.path.rpartition(b"/")
        if header.type == "5":
            if header.path:
                self._make_directory(self._enter(upper), name)
            self._directories.append((header.path, about))
            return
        parent = self._enter(upper)
        match header.type:
            case "0":
                self._file(parent, name, header, about, window, checkpoint)
                return
            case "1":
                above, _, shared = header.link.rpartition(b"/")
                source = os.dup(parent)
                try:
                    os.link(shared, name, src_dir_fd=self._enter(above), dst_dir_fd=source, follow_symlinks=False)
                finally:
                    os.close(source)
                return
            case "2":
                os.symlink(header.link, name, dir_fd=parent)
            case "6":
                os.mkfifo(name, 0o600, dir_fd=parent)
            case _:
                kind = stat.S_IFCHR if header.type == "3" else stat.S_IFBLK
                os.mknod(name, kind | 0o600, os.makedev(*about.device), dir_fd=parent)
        dress_unopened(parent, name, about.dress, self._unset, is_link=header.type == "2")

    def finish(self, checkpoint: Callable[[], None]) -> None:
        """Give all directories their owners, modes and times, from below: nothing more is made in them."""
        while self._directories:
            checkpoint()
            path, about = self._directories.pop()
            try:
                dress(self._enter(path), about.dress, self._unset)
            except OSError as error:
                raise _failure(path, error) from error

    def _make_directory(self, parent: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            # Made for something below that the plan names; anything but a directory fails here.
            os.close(os.open(name, ENTER, dir_fd=parent))

    def _enter(self, path: bytes) -> int:
        """The open directory; it stays open until the next one is entered. Makes what is above all members."""
        if path == self._here:
            return self._descriptor
        inside = path.startswith(self._here + b"/") or not self._here
        at = os.dup(self._descriptor if inside else self._top)
        for name in path[len(self._here) if inside else 0 :].split(b"/"):
            if name:
                above = at
                try:
                    at = _into(above, name)
                finally:
                    os.close(above)
        os.close(self._descriptor)
        self._here, self._descriptor = path, at
        return at

    def _file(
        self,
        parent: int,
        name: bytes,
        header: Header,
        about: _About,
        window: Window,
        checkpoint: Callable[[], None],
    ) -> None:
        descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if header.sparse:
                self._sparse(descriptor, header, window, checkpoint)
            else:
                _write(descriptor, window, header.size, checkpoint)
            dress(descriptor, about.dress, self._unset)
        finally:
            os.close(descriptor)

    def _sparse(self, descriptor: int, header: Header, window: Window, checkpoint: Callable[[], None]) -> None:
        numbers, map_bytes = sparse_map(window, header.stored_bytes)
        for _ in window.pass_by(map_bytes):
            pass
        window.take()
        for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
            os.lseek(descriptor, offset, os.SEEK_SET)
            _write(descriptor, window, length, checkpoint)
        os.ftruncate(descriptor, header.size)


def _into(parent: int, name: bytes) -> int:
    """Open a directory, which is made where nothing is."""
    try:
        return os.open(name, ENTER, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=parent)
        return os.open(name, ENTER, dir_fd=parent)


def _write(descriptor: int, window: Window, size: int, checkpoint: Callable[[], None]) -> None:
    """The next `size` bytes of the archive, which then is at the next block."""
    left = size
    for piece in _pieces(window, size + -size % BLOCK):
        checkpoint()
        content = memoryview(piece)[:left]
        left -= len(content)
        while content:
            content = content[os.write(descriptor, content) :]


def _pieces(window: Window, size: int) -> Iterator[bytes | memoryview]:
    yield from window.pass_by(size)
    yield window.take()


def _about(header: Header, headers: bytes) -> _About:
    """What the headers of a member say of its owner and times, and of its attributes."""
    records = records_of(headers)
    block = headers[-BLOCK:]

    def number(keyword: bytes, start: int) -> int:
        return int(records[keyword]) if keyword in records else _octal(block, start)

    try:
        attributes = dict(filter(None, map(attribute_of, records.items())))
        return _About(
            Dress(
                path=header.path or b".",
                mode=_octal(block, 100) & 0o7777,
                uid=number(b"uid", 108),
                gid=number(b"gid", 116),
                mtime_ns=_time_ns(records[b"mtime"]) if b"mtime" in records else int(block[136:147], 8) * _BILLION,
                attributes=attributes,
            ),
            device=(_octal(block, 329), _octal(block, 337)) if header.type in {"3", "4"} else (0, 0),
        )
    except ValueError as error:
        raise IntegrityError(f"member {printable(header.path)!r} has headers that make no sense: {error}") from error


def _octal(block: bytes, start: int) -> int:
    return int(block[start : start + 7], 8)


def _time_ns(text: bytes) -> int:
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    time_ns = int(whole) * _BILLION + int(fraction[:9].ljust(9, b"0"))
    return -time_ns if text.startswith(b"-") else time_ns


def _failure(path: bytes, error: OSError) -> TemporaryError | PermanentError | IntegrityError:
    shown = printable(path or b".")
    if error.errno in _FULL:
        return TemporaryError(
            f"no room for what is restored: {shown!r}: {error.strerror}", hint="make room below the target"
        )
    if error.errno in {errno.EEXIST, errno.ELOOP, errno.ENOTDIR}:
        return IntegrityError(f"archive is not safe to restore: member {shown!r}: {error.strerror}")
    return PermanentError(f"cannot restore {shown!r}: {error.strerror}")
