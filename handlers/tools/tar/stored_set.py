"""Finds its way around the parts of one set that the tar handler made."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from handlers.contract import Part, SetReader
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.codecs import Codec
from handlers.tools.frame_reader import FrameReader, decompress_frames, decompress_stream
from handlers.tools.frame_table import FrameTable
from handlers.tools.tar.archive_format import BLOCK, Header, Malformed, Window, next_member
from handlers.tools.tar.dumpdir import Dumpdir, parse

_DATA = "data.tar"
_INDEX = "index"
_SNAPSHOT = "tree.snar"
_PROBLEMS = "problems"


class TarSet:
    """One level's parts, uncompressed. For one thread at a time."""

    def __init__(self, reader: SetReader) -> None:
        self._reader = reader
        self.level = reader.level
        self.name = reader.backup_id
        self.bytes_read = 0
        """Stored bytes that were fetched so far."""
        self._frames: FrameReader | None = None
        self._archive_bytes = 0
        self._window: Window | None = None
        self._renames: bytes | None = None

    def archive(self) -> Generator[bytes, None, None]:
        """The whole archive, decoded on all cores; closing it ends the threads.

        Raises IntegrityError at the end at the latest if the stored part is not what its manifest says.
        """
        part = self._part(_DATA)
        stored = self._stream(part)
        try:
            if part.frames is None:
                yield from decompress_stream(stored, _codec(part))
            else:
                yield from decompress_frames(stored, self._table(part))
        except IntegrityError as error:
            if str(self.name) in error.message:
                raise
            raise IntegrityError(f"set {self.name}, {part.name}: {error.message}", hint=error.hint) from error

    def index(self) -> Iterator[bytes]:
        """GNU tar's listing of the archive, see `tar_index`."""
        return self._text(_INDEX)

    def snapshot(self) -> Iterator[bytes]:
        """GNU tar's snapshot file as it was after this level, see `tar_moves`."""
        return self._text(_SNAPSHOT)

    def member_at(self, block: int, path: bytes) -> tuple[Header, Window]:
        """The member that starts at this block; the window is at its data, and only fetches what is asked of it.

        The window serves until the next call. Blocks in rising order are the fast way.

        Raises IntegrityError unless it is the member of that path (`.` for the top directory).
        """
        frames = self._random_access()
        start = block * BLOCK
        if self._window is None or not self._window.seek(start):
            self._window = Window(frames.read_at(start, max(0, self._archive_bytes - start)), start)
        window = self._window
        header = next_member(window)
        if header is None or (header.path or b".") != path:
            found = "its end" if header is None else repr(header.path)
            raise IntegrityError(f"set {self.name}: the index has {path!r} at block {block}, the archive has {found}")
        return header, window

    def bytes_at(self, position: int, length: int) -> Iterator[bytes]:
        """These bytes of the uncompressed archive, in chunks of at most a frame, each checked before it is yielded."""
        return self._random_access().read_at(position, length)

    def problems(self) -> Iterator[bytes] | None:
        """The lines about files that are not in the set as they should be; None where all are."""
        return self._text(_PROBLEMS) if self._find(_PROBLEMS) is not None else None

    def dumpdir_at(self, block: int, path: bytes) -> Dumpdir | None:
        """What the directory at this block had in it; None when GNU tar did not look into it."""
        header, _ = self.member_at(block, path)
        return self._list(header)

    def renames(self) -> bytes:
        """GNU tar's records of the directories that were renamed since the level before; empty where none was."""
        if self._renames is None:
            frames = self._random_access()
            header = next_member(Window(frames.read_at(0, self._archive_bytes)))
            listed = None if header is None else self._list(header)
            self._renames = b"" if listed is None else listed.renames
        return self._renames

    def _list(self, header: Header) -> Dumpdir | None:
        if header.dumpdir is None:
            return None
        try:
            return parse(header.dumpdir)
        except Malformed as error:
            raise IntegrityError(f"set {self.name}: directory {header.path!r} has {error}") from error

    def _random_access(self) -> FrameReader:
        if self._frames is None:
            part = self._part(_DATA)
            table = self._table(part)
            self._archive_bytes = table.bytes_in
            self._frames = FrameReader(lambda offset, length: self._fetch(part.name, offset, length), table)
        return self._frames

    def _fetch(self, name: str, offset: int, length: int) -> bytes:
        fetched = self._reader.read_range(name, offset, length)
        self.bytes_read += len(fetched)
        return fetched

    def _table(self, part: Part) -> FrameTable:
        if part.frames is None:
            raise PermanentError(
                f"part {part.name} of set {self.name} has no frame table", hint="restore the whole set instead"
            )
        table = FrameTable.parse(self._stream(self._named(part.frames.table)))
        if table.codec != _codec(part) or table.bytes_out != part.size_bytes:
            raise IntegrityError(f"set {self.name}: {part.frames.table} is not the frame table of {part.name}")
        return table

    def _text(self, stem: str) -> Iterator[bytes]:
        part = self._part(stem)
        return decompress_stream(self._stream(part), _codec(part))

    def _stream(self, part: Part) -> Iterator[bytes]:
        for chunk in self._reader.stream(part.name):
            self.bytes_read += len(chunk)
            yield chunk

    def _part(self, stem: str) -> Part:
        """The part of that name, with or without the suffix of a codec."""
        part = self._find(stem)
        if part is None:
            raise IntegrityError(f"set {self.name} has no part {stem}")
        return part

    def _find(self, stem: str) -> Part | None:
        names = {stem + codec.suffix for codec in Codec}
        return next((part for name, part in self._reader.parts.items() if name in names), None)

    def _named(self, name: str) -> Part:
        part = self._reader.parts.get(name)
        if part is None:
            raise IntegrityError(f"set {self.name} has no part {name}")
        return part


def _codec(part: Part) -> Codec:
    if part.codec not in Codec.__members__.values():
        raise IntegrityError(f"part {part.name} has unknown codec {part.codec!r}")
    return Codec(part.codec)
