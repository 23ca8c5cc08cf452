"""Finds single names in a listing that is too long to be read for each of them."""

from __future__ import annotations

import os
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from typing import IO

from handlers.tools.process import disk_error
from handlers.tools.trees.mtree import Item, beginning, item, items, line, order

_BLOCK_BYTES = 64 << 10


class ListingTable:
    """The names of a listing, in a temporary file; in memory is where each 64 KiB of it begin.

    The file has no name: nothing is left of it, however the process ends. Raises IntegrityError for a listing that is
    none, TemporaryError when the disk with the directory for temporary files (`TMPDIR`) is full.
    """

    def __init__(self, listing: Iterable[bytes]) -> None:
        """Reads all of it."""
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="holdfast-")  # noqa: SIM115 - the next line closes it
        weakref.finalize(self, self._file.close)
        self._keys: list[bytes] = []
        self._places: list[int] = []
        block = bytearray()
        at = 0
        try:
            for each in items(listing):
                if not block:
                    self._keys.append(order(each.path))
                    self._places.append(at)
                block += line(each)
                if len(block) >= _BLOCK_BYTES:
                    at += self._file.write(block)
                    block.clear()
            at += self._file.write(block)
            self._file.flush()
        except OSError as error:
            raise disk_error(error, f"cannot write temporary files in {tempfile.gettempdir()}") from error
        self._places.append(at)

    def find(self, path: bytes) -> Item | None:
        """What the listing says of a name; None where it does not have it."""
        number = bisect_right(self._keys, order(path)) - 1
        start, end = self._places[number], self._places[number + 1]
        block = b"\n" + os.pread(self._file.fileno(), end - start, start)
        at = block.find(b"\n" + beginning(path))
        return None if at < 0 else item(block[at + 1 : block.index(b"\n", at + 1)])
