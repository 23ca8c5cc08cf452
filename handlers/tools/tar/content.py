"""Reads the content of single files out of an archive by frames, holes as zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handlers.contract import printable
from handlers.errors import IntegrityError
from handlers.tools.tar.archive_format import BLOCK, Malformed, sparse_map
from handlers.tools.tar.stored_set import TarSet

_FILE = "0"
_ZEROS = bytes(1 << 20)


class _Region(NamedTuple):
    """Bytes of a file that are in the archive."""

    offset: int
    length: int
    position: int
    """In the uncompressed archive."""


class FileContent:
    """Where the bytes of one regular file are."""

    def __init__(self, level: TarSet, block: int, path: bytes, size: int) -> None:
        """Raises IntegrityError unless the archive has a regular file of this path and size at this block."""
        self._level = level
        header, window = level.member_at(block, path)
        if header.type != _FILE or header.size != size:
            raise IntegrityError(
                f"set {level.name}: the index has {printable(path)!r} as a file of {size} bytes, "
                f"the archive has type {header.type} and {header.size} bytes"
            )
        self._size = size
        position = window.block() * BLOCK
        if not header.sparse:
            self._regions = [_Region(0, size, position)]
            return
        try:
            numbers, map_bytes = sparse_map(window, header.stored_bytes)
        except Malformed as error:
            raise IntegrityError(f"set {level.name}: {printable(path)!r} is malformed: {error}") from error
        self._regions = []
        position += map_bytes
        for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
            self._regions.append(_Region(offset, length, position))
            position += length + -length % BLOCK

    def read(self, offset: int, length: int | None) -> Iterator[bytes]:
        """The bytes from offset on, at most length; fewer only at the end."""
        end = self._size if length is None else min(self._size, offset + length)
        at = offset
        for region in self._regions:
            start, stop = max(at, region.offset), min(end, region.offset + region.length)
            if start >= stop:
                continue
            yield from _hole(start - at)
            yield from self._level.bytes_at(region.position + start - region.offset, stop - start)
            at = stop
        yield from _hole(end - at)


def _hole(length: int) -> Iterator[bytes]:
    while length > 0:
        piece = _ZEROS[:length]
        yield piece
        length -= len(piece)
