"""Reads the headers of one archive member at a time, in exactly the dialect that GNU tar's posix format writes.

Python's `tarfile` guesses where this refuses: it takes several formats, repairs what it can, and reads some 15 000
members a second. A checker in front of GNU tar must see the same names in the same places as GNU tar does, so
whatever is not written the way GNU tar writes it is an error, even where a reader could make sense of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from zlib import adler32

from handlers.contract import printable
from handlers.errors import IntegrityError

BLOCK = 512
END = bytes(2 * BLOCK)
"""What follows the last member."""

MAX_PAX_BYTES = 512 << 20
"""The longest extended header that is read: the list of a directory with some ten million files."""

_ZEROS = bytes(BLOCK)
_MAX_SPARSE_MAP_BYTES = 64 << 20
_LARGEST = 1 << 62
_PLAIN_KEYS = frozenset({b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"RHT.security.selinux"})
XATTR = b"SCHILY.xattr."
"""How keywords of an extended header begin that hold an extended attribute."""
ACL = b"SCHILY.acl."
"""The same for access control lists, in words."""
_MEANT_KEYS = frozenset(
    {
        b"path",
        b"linkpath",
        b"size",
        b"GNU.dumpdir",
        b"GNU.sparse.name",
        b"GNU.sparse.major",
        b"GNU.sparse.minor",
        b"GNU.sparse.realsize",
    }
)
_TYPES = frozenset(b"0123456")


class Malformed(Exception):
    """What is wrong with a member, before it is known which one; `next_member` turns it into an IntegrityError."""


class Header(NamedTuple):
    """One member as its headers describe it. A plain tuple: there may be millions."""

    path: bytes
    """Checked: relative, without `.` or `..`, without a slash at its end; empty for the top directory."""
    type: str
    """The type flag: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 directory, 6 FIFO."""
    link: bytes
    """Of a hard link the path it shares, checked like `path`; of a symbolic link its target, which may be anything."""
    size: int
    """Bytes of the file when restored, holes included."""
    stored_bytes: int
    """Bytes that follow the headers in the archive: whole blocks."""
    dumpdir: bytes | None
    """The directory's list of names, see `tar_dumpdir`."""
    sparse: bool
    attributes: tuple[bytes, ...] = ()
    """Keywords of the extended header that hold extended attributes and access control lists."""


class Window:
    """The part of a stream that is in memory: `buffer[start:at]` was read and not taken yet, `at` is the next byte."""

    __slots__ = ("_chunks", "at", "buffer", "position", "start")

    def __init__(self, chunks: Iterator[bytes], position: int = 0) -> None:
        self._chunks = chunks
        self.buffer = b""
        self.start = 0
        self.at = 0
        self.position = position
        """Place of `buffer[0]` in the archive."""

    def need(self, size: int) -> None:
        """Make sure that `size` bytes follow `at`. Raises IntegrityError where the archive ends before."""
        missing = self.at + size - len(self.buffer)
        if missing <= 0:
            return
        parts = [self.buffer[self.start :]]
        while missing > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise IntegrityError(f"archive is cut short: it ends within block {self.block()}")
            parts.append(chunk)
            missing -= len(chunk)
        self.buffer = b"".join(parts)
        self.position += self.start
        self.at -= self.start
        self.start = 0

    def low(self) -> bool:
        """Whether little is left in memory: a good moment to take what was read, so that nothing is copied twice."""
        return len(self.buffer) - self.at < 8 * BLOCK

    def take(self) -> memoryview:
        """What was read since the last `take`."""
        taken = memoryview(self.buffer)[self.start : self.at]
        self.start = self.at
        return taken

    def pass_by(self, size: int) -> Iterator[memoryview]:
        """What was read, and the next `size` bytes as they come. Raises IntegrityError where the archive ends first."""
        self.at += size
        while self.at > len(self.buffer):
            yield memoryview(self.buffer)[self.start :]
            chunk = next(self._chunks, None)
            if chunk is None:
                raise IntegrityError(f"archive is cut short: it ends within block {self.block()}")
            self.position += len(self.buffer)
            self.at -= len(self.buffer)
            self.buffer = chunk
            self.start = 0
        if self.low():
            yield self.take()

    def seek(self, position: int) -> bool:
        """Go to a place of the archive that is in memory; False when it is not. What was not taken yet is dropped."""
        at = position - self.position
        if not 0 <= at <= len(self.buffer):
            return False
        self.start = self.at = at
        return True

    def rest(self) -> Iterator[bytes]:
        """All that follows `at`."""
        yield self.buffer[self.at :]
        yield from self._chunks

    def block(self) -> int:
        """The number of the block at `at`, as `tar --block-number` counts."""
        return (self.position + self.at) // BLOCK


def next_member(window: Window) -> Header | None:
    """The member that starts at `window.at`, which is then at its data; None at the zero block that ends an archive.

    Raises IntegrityError for anything that GNU tar would not have written, naming the block.
    """
    block = window.block()
    try:
        return _next_member(window)
    except Malformed as error:
        raise IntegrityError(f"archive is malformed in the member at block {block}: {error}") from None


def pax_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keyword with value of each record of an extended header. Raises Malformed where a length is wrong."""
    at = 0
    end = len(body)
    while at < end:
        space = body.find(b" ", at, at + 12)
        digits = body[at:space]
        if space < 0 or not digits.isdigit() or digits[0] == 48:
            raise Malformed(f"extended header record without length: {body[at : at + 40]!r}")
        after = at + int(digits)
        equals = body.find(b"=", space, after)
        if equals < 0 or after > end or body[after - 1] != 10:
            raise Malformed(f"extended header record of wrong length: {body[at : at + 40]!r}")
        yield body[space + 1 : equals], body[equals + 1 : after - 1]
        at = after


def checked_path(name: bytes) -> bytes:
    """The name without `./` before or `/` behind it; empty for the top directory.

    Raises Malformed for an absolute name or one with `..`, `.` or nothing between its slashes.
    """
    path = name[2:] if name[:2] == b"./" else name
    if path[-1:] == b"/":
        path = path[:-1]
    inside = b"/" + path + b"/"
    if b"/../" in inside or b"//" in inside or b"/./" in inside or b"\0" in path:
        if name in {b"./", b"."}:
            return b""
        raise Malformed(f"unsafe name {printable(name[:300])!r}")
    return path


def _next_member(window: Window) -> Header | None:
    window.need(BLOCK)
    buffer, at = window.buffer, window.at
    meant: dict[bytes, bytes] = {}
    attributes: list[bytes] = []
    if buffer[at + 156] == 0x78:  # x
        length = _header_size(buffer, at)
        if length > MAX_PAX_BYTES:
            raise Malformed(f"extended header of {length} bytes")
        padded = length + -length % BLOCK
        window.need(BLOCK + padded + BLOCK)
        buffer, at = window.buffer, window.at + BLOCK
        for key, value in pax_records(buffer[at : at + length]):
            if key in _PLAIN_KEYS:
                continue
            if key in _MEANT_KEYS:
                if key in meant:
                    raise Malformed(f"{key.decode()} is given twice")
                meant[key] = value
            elif key.startswith((XATTR, ACL)):
                attributes.append(key)
            else:
                raise Malformed(f"unknown extended header keyword {printable(key[:100])!r}")
        at += padded
    elif buffer.startswith(_ZEROS, at):
        return None
    window.at = at + BLOCK
    header = _member(window, buffer, at, meant)
    return header._replace(attributes=tuple(attributes)) if attributes else header


def _member(window: Window, buffer: bytes, at: int, meant: dict[bytes, bytes]) -> Header:
    """The member whose own header is at `at`; the window is behind it."""
    size = _header_size(buffer, at)
    flag = buffer[at + 156]
    if flag not in _TYPES:
        raise Malformed(f"unknown type {chr(flag)!r}")
    if not meant:
        name = _ustar_name(buffer, at)
    else:
        name = meant.pop(b"path") if b"path" in meant else _ustar_name(buffer, at)
        if b"size" in meant:
            size = _decimal(meant.pop(b"size"))
    if flag == 0x30:  # 0
        if not meant:
            return Header(_file_path(name), "0", b"", size, size + -size % BLOCK, None, False)
        return _sparse(window, size, meant)
    if size:
        raise Malformed(f"a member of type {chr(flag)} with {size} bytes")
    if flag == 0x35:  # 5
        dumpdir = meant.pop(b"GNU.dumpdir", None)
        _refuse(meant)
        return Header(checked_path(name), "5", b"", 0, 0, dumpdir, False)
    link = b""
    if flag in b"12":
        link = meant.pop(b"linkpath") if b"linkpath" in meant else _until_nul(buffer, at + 157, at + 257)
        if flag == 0x31:
            link = _file_path(link)
        elif not link or b"\0" in link:
            raise Malformed(f"symbolic link to {link[:300]!r}")
    _refuse(meant)
    return Header(_file_path(name), chr(flag), link, 0, 0, None, False)


def _sparse(window: Window, size: int, meant: dict[bytes, bytes]) -> Header:
    """A file with holes, format 1.0: its data starts with a map of what is there."""
    version = (meant.pop(b"GNU.sparse.major", None), meant.pop(b"GNU.sparse.minor", None))
    name = meant.pop(b"GNU.sparse.name", None)
    real = meant.pop(b"GNU.sparse.realsize", None)
    _refuse(meant)
    if version != (b"1", b"0") or not name or real is None:
        raise Malformed("sparse file of unknown version")
    realsize = _decimal(real)
    numbers, map_bytes = sparse_map(window, size)
    stored = blocks = map_bytes
    end = 0
    for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
        if offset < end or offset + length > realsize:
            raise Malformed(f"sparse file with a region at {offset} of {length} bytes")
        end = offset + length
        stored += length
        # GNU tar starts every region at a block, which its own size does not count.
        blocks += length + -length % BLOCK
    if stored != size:
        raise Malformed(f"sparse file of {size} bytes whose map makes {stored}")
    return Header(_file_path(name), "0", b"", realsize, blocks, None, True)


def sparse_map(window: Window, size: int) -> tuple[list[int], int]:
    """The numbers of the map, and how many bytes it takes. The window stays where it is."""
    have = 0
    wanted = 1
    lines: list[bytes] = []
    while len(lines) <= wanted:
        have += max(BLOCK, have)
        if have - BLOCK > min(size, _MAX_SPARSE_MAP_BYTES):
            raise Malformed("sparse file with an endless map")
        window.need(have)
        begun = window.buffer[window.at : window.at + have]
        lines = begun.split(b"\n", wanted)
        if wanted == 1 and len(lines) > 1:
            if (count := _decimal(lines[0])) > size:
                raise Malformed(f"sparse file with {count} regions")
            wanted = 1 + 2 * count
            lines = begun.split(b"\n", wanted)
    numbers = [_decimal(line) for line in lines[1:wanted]]
    map_bytes = sum(map(len, lines[:wanted])) + wanted
    return numbers, map_bytes + -map_bytes % BLOCK


def _refuse(meant: dict[bytes, bytes]) -> None:
    if meant:
        raise Malformed(f"{next(iter(meant)).decode()} where it means nothing")


def _file_path(name: bytes) -> bytes:
    if name[-1:] == b"/":
        raise Malformed(f"a file called {printable(name[:300])!r}")
    path = checked_path(name)
    if not path:
        raise Malformed("the top directory is no directory")
    return path


def _header_size(buffer: bytes, at: int) -> int:
    """The size that a header tells, once its checksum is right.

    adler32's low half is one more than the sum of the bytes, exact up to 65 520: three cuts keep each sum below that.
    """
    total = (
        (adler32(buffer[at : at + 148]) & 0xFFFF)
        + (adler32(buffer[at + 156 : at + 412]) & 0xFFFF)
        + (adler32(buffer[at + 412 : at + 512]) & 0xFFFF)
        + 253
    )
    if buffer[at + 148 : at + 156] != b"%06o\0 " % total:
        raise Malformed("header with a wrong checksum")
    if buffer[at + 257 : at + 265] != b"ustar\x0000":
        raise Malformed("header of another format")
    digits = buffer[at + 124 : at + 135]
    if not digits.isdigit() or buffer[at + 135]:
        raise Malformed(f"header with size {digits!r}")
    try:
        return int(digits, 8)
    except ValueError:
        raise Malformed(f"header with size {digits!r}") from None


def _ustar_name(buffer: bytes, at: int) -> bytes:
    name = _until_nul(buffer, at, at + 100)
    if buffer[at + 345]:
        return _until_nul(buffer, at + 345, at + 500) + b"/" + name
    return name


def _until_nul(buffer: bytes, start: int, end: int) -> bytes:
    return buffer[start:end].split(b"\0", 1)[0]


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19 or (number := int(digits)) > _LARGEST:
        raise Malformed(f"number {digits[:40]!r}")
    return number
