"""Shows a set as a read-only file system, by FUSE.

For one thread: FUSE hands over one operation at a time. Nobody but the user who mounts sees anything of it, as with
any FUSE file system that does not ask for more; file modes are shown, not enforced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from loguru import logger

from handlers.contents import Entry, EntryType
from handlers.contract import printable
from handlers.errors import HoldfastError, PermanentError
from worker.browse import TOP, Opened
from worker.entry_table import EntryTable

if TYPE_CHECKING:
    from types import ModuleType

_INSTALL = "pip install 'holdfast[mount]', and the system's FUSE (Debian: apt install fuse3)"
_TYPE_BITS: Mapping[EntryType, int] = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
}
_FOR_EVER_SECONDS = 86_400
"""How long the kernel may remember what it was told: a set never changes."""


def mount(opened: Opened, directory: Path, mounted: Callable[[EntryTable], None]) -> None:
    """Show the set at this directory until it is unmounted, or a SIGINT, SIGTERM or SIGHUP comes.

    The whole index is read first, into a temporary file. `mounted` is called once it can be looked at. Raises
    PermanentError where FUSE is missing or does not let us, and what reading the index raises.
    """
    fuse = _library()
    top, _ = opened.look(TOP)
    with closing(EntryTable(opened.contents.walk(TOP))) as table:
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = True
            mounted(table)

        view = _View(opened, table, top)
        operations = _operations(fuse, view, begin)
        try:
            fuse.FUSE(
                operations,
                str(directory),
                foreground=True,
                nothreads=True,
                ro=True,
                fsname=str(opened.stored.name).replace(",", "_"),
                subtype="holdfast",
                kernel_cache=True,
                attr_timeout=_FOR_EVER_SECONDS,
                entry_timeout=_FOR_EVER_SECONDS,
                negative_timeout=_FOR_EVER_SECONDS,
            )
        except RuntimeError as error:
            # libfuse ends with a number after a signal, too, having unmounted.
            if not begun:
                raise PermanentError(f"cannot mount at {directory}: FUSE refused ({error})", hint=_INSTALL) from error


def _library() -> ModuleType:
    try:
        import mfusepy
    except (ImportError, OSError, AttributeError) as error:
        raise PermanentError(f"cannot mount: {error}", hint=_INSTALL) from error
    return cast("ModuleType", mfusepy)


def _operations(fuse: ModuleType, view: _View, begin: Callable[[], None]) -> object:
    """What the library calls; it only calls what is defined."""

    class Operations(fuse.Operations):  # type: ignore[misc,name-defined]  # the base is known at run time alone
        use_ns = True

        def init(self, path: str) -> None:
            begin()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            return view.attributes(_path(path))

        def readdir(self, path: str, fh: int) -> Iterator[str | tuple[str, dict[str, int], int]]:
            return view.names(_path(path))

        def readlink(self, path: str) -> str:
            return _text(view.entry(_path(path)).target or b"")

        def listxattr(self, path: str) -> list[str]:
            return []  # else programs that copy attributes complain at length

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return view.read(_path(path), size, offset)

    return Operations()


class _View:
    """The set as a file system sees it; every failure is an OSError."""

    def __init__(self, opened: Opened, table: EntryTable, top: Entry) -> None:
        self._opened = opened
        self._table = table
        self._top = top

    def entry(self, path: bytes) -> Entry:
        found = self._top if path == TOP else self._table.entry(path)
        if found is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return found

    def attributes(self, path: bytes) -> dict[str, int]:
        return _attributes(self.entry(path))

    def names(self, path: bytes) -> Iterator[str | tuple[str, dict[str, int], int]]:
        yield "."
        yield ".."
        for name, entry in self._table.directory(path).items():
            yield _text(name), {"st_mode": _attributes(entry)["st_mode"]}, 0

    def read(self, path: bytes, size: int, offset: int) -> bytes:
        entry = self.entry(path)
        try:
            return b"".join(self._opened.contents.read(entry, offset, size))
        except HoldfastError as error:
            logger.error("mount_read_failed", path=printable(path), error=str(error), next="the reader gets EIO")
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _attributes(entry: Entry) -> dict[str, int]:
    is_directory = entry.type is EntryType.DIRECTORY
    mode = entry.mode if entry.mode is not None else 0o755
    mtime = entry.mtime_ns or 0
    found = {
        "st_mode": _TYPE_BITS[entry.type] | mode,
        # Of a directory 1 says that nobody knows how many directories are in it.
        "st_nlink": 1,
        "st_uid": entry.uid or 0,
        "st_gid": entry.gid or 0,
        "st_size": len(entry.target) if entry.target is not None else entry.size,
        "st_blocks": 0 if is_directory else -(-entry.size // 512),
        "st_mtime": mtime,
        "st_ctime": mtime,
        "st_atime": mtime,
    }
    if entry.device is not None:
        found["st_rdev"] = os.makedev(*entry.device)
    return found


def _path(given: str) -> bytes:
    return given.encode("utf-8", "surrogateescape").strip(b"/") or TOP


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
