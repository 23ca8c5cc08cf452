"""Writes single members of an archive with their lines of the listing, out of files that change while they are read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

from handlers.contract import ProblemKind
from handlers.tools.tar import header as tar_header
from handlers.tools.tar.header import BLOCK, Facts, Record, member_header, sparse_map
from handlers.tools.tar.listing import Listing
from handlers.tools.tar.pax_attributes import attribute_records

_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CHUNK_BYTES = 256 << 10
_RECORD_BYTES = 20 * BLOCK
_ZEROS = bytes(64 << 10)
_MAX_REGIONS = 1_000_000
"""A file with more holes than this is stored with its holes as zeros: its map would fill the memory."""

_KINDS = {
    stat.S_IFREG: (tar_header.FILE, b"-"),
    stat.S_IFLNK: (tar_header.SYMBOLIC_LINK, b"l"),
    stat.S_IFCHR: (tar_header.CHARACTER_DEVICE, b"c"),
    stat.S_IFBLK: (tar_header.BLOCK_DEVICE, b"b"),
    stat.S_IFIFO: (tar_header.FIFO, b"p"),
}

Problem = Callable[[bytes, ProblemKind, str], None]
"""Called with the member's name, what is wrong with it, and that in words."""


class Replaced(Exception):
    """Something else has this name by now: look again."""


class Output(Protocol):
    """Where the archive goes."""

    def archive(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the archive; the chunk may be reused afterwards."""

    def listing(self, lines: bytes) -> None:
        """Take the next lines of the listing."""

    def checkpoint(self) -> None:
        """Called often; raises what ends the work."""


class MemberWriter:
    """Writes one member after the other. Memory: one entry for each file whose other hard links are still to come."""

    def __init__(self, output: Output, *, xattrs: bool, acls: bool, sparse: bool, problem: Problem) -> None:
        self._output = output
        self._xattrs = xattrs
        self._acls = acls
        self._sparse = sparse
        self._problem = problem
        self._listing = Listing()
        self._lines = bytearray()
        self._gathered = bytearray()
        self._position = 0
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._shared: dict[tuple[int, int], tuple[bytes, int]] = {}
        """By device and inode: the name of the first link, and how many more there may be."""

    def write(self, parent: int, name: bytes, path: bytes, about: os.stat_result) -> None:
        """Archive what is no directory. Raises OSError where it is gone, Replaced where it is something else now."""
        key = (about.st_dev, about.st_ino)
        if about.st_nlink > 1 and key in self._shared:
            self._hard_link(path, about, key)
            return
        kind = _KINDS.get(stat.S_IFMT(about.st_mode))
        if kind is None:
            self._problem(path, ProblemKind.UNKNOWN_TYPE, "Unknown file type; file ignored")
            return
        if stat.S_ISREG(about.st_mode):
            written = self._open_file(parent, name, path, about)
        else:
            self._special(parent, name, path, about, kind)
            written = True
        if written and about.st_nlink > 1:
            self._shared[key] = (path, about.st_nlink - 1)

    def write_directory(self, place: int | str, path: bytes, about: os.stat_result, names: bytes | None) -> None:
        """Archive a directory, open or by path; `names` is what GNU tar would say was in it."""
        records = self._attributes(place, path)
        if names is not None:
            records.append((b"GNU.dumpdir", names))
        self._header(path + b"/", tar_header.DIRECTORY, b"d", _facts(about), records=records)

    def end(self) -> None:
        """Write what marks the end of the archive; all is handed over on return."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self._position % _RECORD_BYTES))
        self._flush()
        self._output.listing(bytes(self._lines))
        self._lines.clear()

    def _hard_link(self, path: bytes, about: os.stat_result, key: tuple[int, int]) -> None:
        first, more = self._shared.pop(key)
        if more > 1:
            self._shared[key] = (first, more - 1)
        self._header(path, tar_header.HARD_LINK, b"h", _facts(about), link=first)

    def _special(self, parent: int, name: bytes, path: bytes, about: os.stat_result, kind: tuple[bytes, bytes]) -> None:
        """A symbolic link, a FIFO or a device."""
        flag, letter = kind
        link = os.readlink(name, dir_fd=parent) if flag == tar_header.SYMBOLIC_LINK else None
        device = None
        if flag in {tar_header.CHARACTER_DEVICE, tar_header.BLOCK_DEVICE}:
            device = (os.major(about.st_rdev), os.minor(about.st_rdev))
        # Such a thing cannot be opened without side effects; the directory is, so no link is followed on the way.
        records = self._attributes(reached(parent, name), path)
        self._header(path, flag, letter, _facts(about), link=link, device=device, records=records)

    def _open_file(self, parent: int, name: bytes, path: bytes, seen: os.stat_result) -> bool:
        try:
            descriptor = os.open(name, _LOOK, dir_fd=parent)
        except OSError as error:
            if not os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), seen):
                raise Replaced from error
            self._problem(path, ProblemKind.UNREADABLE, f"Cannot open: {error.strerror}")
            return False
        try:
            about = os.fstat(descriptor)
            if not os.path.samestat(about, seen):
                raise Replaced
            self._file(descriptor, path, about)
        finally:
            os.close(descriptor)
        return True

    def _file(self, descriptor: int, path: bytes, about: os.stat_result) -> None:
        size = about.st_size
        records = self._attributes(descriptor, path)
        regions = self._regions(descriptor, about)
        if regions is None:
            self._header(path, tar_header.FILE, b"-", _facts(about), size=size, records=records)
            whole = self._content(descriptor, path, 0, size)
        else:
            head = sparse_map(regions)
            stored = len(head) + sum(length for _, length in regions)
            self._header(path, tar_header.FILE, b"-", _facts(about), size=stored, records=records, sparse_size=size)
            self._put(head)
            whole = True
            for offset, length in regions:
                if whole:
                    whole = self._content(descriptor, path, offset, length)
                else:
                    self._zeros(length + -length % BLOCK)
        after = os.fstat(descriptor)
        if whole and _moment(after) != _moment(about):
            self._problem(path, ProblemKind.CHANGED, "file changed as we read it")

    def _content(self, descriptor: int, path: bytes, start: int, size: int) -> bool:
        """Exactly so many bytes of a file, and zeros up to the next block: what is missing is zeros as well.

        Returns whether all was there.
        """
        at, end = start, start + size
        why: tuple[ProblemKind, str] | None = None
        while at < end:
            self._output.checkpoint()
            wanted = min(end - at, _CHUNK_BYTES)
            try:
                count = os.preadv(descriptor, [self._buffer[:wanted]], at)
            except OSError as error:
                detail = f"Read error at byte {at}, while reading {wanted} bytes: {error.strerror}"
                why = (ProblemKind.UNREADABLE, detail)
                break
            if not count:
                why = (ProblemKind.CHANGED, f"File shrank by {end - at} bytes; padding with zeros")
                break
            self._put(self._buffer[:count])
            at += count
        if why is not None:
            self._problem(path, *why)
            self._zeros(end - at)
        self._put(bytes(-size % BLOCK))
        return why is None

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._output.checkpoint()
            self._put(_ZEROS[:count])
            count -= len(_ZEROS)

    def _regions(self, descriptor: int, about: os.stat_result) -> Sequence[tuple[int, int]] | None:
        """What is no hole, in whole blocks; None for a file without holes."""
        size = about.st_size
        if not self._sparse or about.st_blocks * BLOCK >= size:
            return None
        regions: list[tuple[int, int]] = []
        at = 0
        try:
            while at < size:
                start = os.lseek(descriptor, at, os.SEEK_DATA)
                if start >= size:
                    break
                at = os.lseek(descriptor, start, os.SEEK_HOLE)
                # GNU tar pads a region that ends within a block, but does not count that: whole blocks only.
                start, at = start - start % BLOCK, min(at + -at % BLOCK, size)
                if regions and start <= sum(regions[-1]):
                    start = regions.pop()[0]
                regions.append((start, at - start))
                if len(regions) > _MAX_REGIONS:
                    return None
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that there is no more data
                return None
        if regions == [(0, size)]:
            return None
        if not regions or sum(regions[-1]) < size:
            regions.append((size, 0))
        return regions

    def _attributes(self, place: int | str, path: bytes) -> list[Record]:
        if not self._xattrs and not self._acls:
            return []

        def complain(what: str, number: int | None) -> None:
            # What is looked at by name may have gone since it was looked at first.
            gone = number in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
            self._problem(path, ProblemKind.CHANGED if gone else ProblemKind.OTHER, what)

        return list(attribute_records(place, xattrs=self._xattrs, acls=self._acls, complain=complain))

    def _header(
        self,
        name: bytes,
        kind: bytes,
        letter: bytes,
        facts: Facts,
        *,
        size: int = 0,
        link: bytes | None = None,
        device: tuple[int, int] | None = None,
        records: Sequence[Record] = (),
        sparse_size: int | None = None,
    ) -> None:
        real_size = size if sparse_size is None else sparse_size
        self._lines += self._listing.line(
            self._position // BLOCK, letter, name, facts, size=real_size, link=link, device=device
        )
        if len(self._lines) >= len(_ZEROS):
            self._output.listing(bytes(self._lines))
            self._lines.clear()
        self._put(
            member_header(
                name,
                kind,
                facts,
                size=size,
                link=link or b"",
                device=device or (0, 0),
                records=records,
                sparse_size=sparse_size,
            )
        )

    def _put(self, chunk: bytes | memoryview) -> None:
        """Gather small pieces, so that few calls go to the compressor."""
        self._position += len(chunk)
        if len(chunk) >= _CHUNK_BYTES:
            self._flush()
            self._output.archive(chunk)
            return
        self._gathered += chunk
        if len(self._gathered) >= _CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._output.archive(self._gathered)
            self._gathered.clear()


def reached(directory: int, name: bytes) -> str:
    """A path to what is in an open directory, for calls that take nothing else; no link on the way is followed."""
    return f"/proc/self/fd/{directory}/{os.fsdecode(name)}"


def _facts(about: os.stat_result) -> Facts:
    return Facts(stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, about.st_mtime_ns)


def _moment(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns
