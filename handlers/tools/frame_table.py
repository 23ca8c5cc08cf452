"""The list of a part's frames, which maps its uncompressed bytes to byte ranges of the stored file.

Plain text, made to be streamed while the part is written:

    holdfast-frames 1 <codec> <frame_bytes>
    <offset> <length> <sha256>                 one line per frame, of its bytes as stored
    end <frames> <bytes_in> <bytes_out>        so that a table that was cut short is known as such
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec

MAX_FRAME_BYTES = 256 << 20
"""The largest frame that is written or read: what bounds the memory of both."""

_MAX_LINE_BYTES = 160
_READ_BYTES = 1 << 16
_DIGEST_BYTES = 32

_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_HEADER = re.compile(rb"holdfast-frames 1 ([a-z0-9]{1,16}) " + _NUMBER)
_FRAME = re.compile(_NUMBER + b" " + _NUMBER + rb" ([0-9a-f]{64})")
_END = re.compile(rb"end " + _NUMBER + b" " + _NUMBER + b" " + _NUMBER)


@runtime_checkable
class Readable(Protocol):
    """Anything with a blocking `read`."""

    def read(self, size: int, /) -> bytes:
        """Up to size bytes; empty at the end."""


Source = Readable | Iterable[bytes]
"""Stored bytes in order: an open file, or an iterator of chunks of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame of a part."""

    number: int
    offset: int
    """Where its stored bytes start in the part."""
    length: int
    """How many bytes are stored."""
    size_bytes: int
    """How many bytes it holds, uncompressed."""
    sha256: bytes
    """Of the bytes as stored: 32 raw bytes."""

    def __str__(self) -> str:
        return f"frame {self.number} (stored bytes {self.offset} to {self.offset + self.length})"


def header_line(codec: Codec, frame_bytes: int) -> bytes:
    """The first line of a table."""
    return f"holdfast-frames 1 {codec} {frame_bytes}\n".encode()


def frame_line(frame: Frame) -> bytes:
    """The line of one frame."""
    return f"{frame.offset} {frame.length} {frame.sha256.hex()}\n".encode()


def end_line(frames: int, bytes_in: int, bytes_out: int) -> bytes:
    """The last line of a table."""
    return f"end {frames} {bytes_in} {bytes_out}\n".encode()


def chunks_of(source: Source) -> Iterator[bytes]:
    """The bytes of the source in chunks of any size but zero."""
    chunks = iter(partial(source.read, _READ_BYTES), b"") if isinstance(source, Readable) else source
    return (chunk for chunk in chunks if chunk)


class FrameTable:
    """Where each frame of a part is: 40 bytes of memory per frame. Made by `FrameTable.parse`."""

    def __init__(self, codec: Codec, frame_bytes: int) -> None:
        self.codec = codec
        self.frame_bytes = frame_bytes
        self.bytes_in = 0
        """Uncompressed bytes of the whole part."""
        self.bytes_out = 0
        """Stored bytes of the whole part."""
        self._lengths_end = array("Q")
        self._digests = bytearray()

    @classmethod
    def parse(cls, source: Source) -> FrameTable:
        """The table that was written beside a part.

        Raises IntegrityError, naming the line, unless the frames follow each other without gap or overlap, fit the
        size of a frame, and are as many as the last line says.
        """
        lines = enumerate(_lines(source), start=1)
        table = cls._begin(next(lines, (1, b""))[1])
        for number, line in lines:
            if line.startswith(b"end "):
                table._finish(number, line)
                if next(lines, None) is not None:
                    raise IntegrityError(f"frame table line {number}: there is more after its end")
                return table
            table._append(number, line)
        raise IntegrityError(f"frame table is cut short after {len(table)} frames")

    def __len__(self) -> int:
        return len(self._lengths_end)

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no frame {number} among {len(self)}")
        offset = self._lengths_end[number - 1] if number else 0
        return Frame(
            number=number,
            offset=offset,
            length=self._lengths_end[number] - offset,
            size_bytes=min(self.frame_bytes, self.bytes_in - number * self.frame_bytes),
            sha256=bytes(self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]),
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(len(self)))

    @classmethod
    def _begin(cls, line: bytes) -> FrameTable:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise IntegrityError(f"frame table line 1: not the start of a frame table: {_shown(line)}")
        name = found[1].decode()
        frame_bytes = int(found[2])
        if name not in Codec.__members__.values():
            raise IntegrityError(f"frame table line 1: unknown codec {name}")
        if not 0 < frame_bytes <= MAX_FRAME_BYTES:
            raise IntegrityError(f"frame table line 1: frames of {frame_bytes} bytes")
        return cls(Codec(name), frame_bytes)

    def _append(self, number: int, line: bytes) -> None:
        found = _FRAME.fullmatch(line)
        if found is None:
            raise IntegrityError(f"frame table line {number}: not a frame: {_shown(line)}")
        offset, length = int(found[1]), int(found[2])
        if offset != self.bytes_out:
            what = "gap" if offset > self.bytes_out else "overlap"
            raise IntegrityError(f"frame table line {number}: {what}: offset {offset}, not {self.bytes_out}")
        # No codec makes data this much larger; without a limit a damaged length would ask for any memory.
        if not 0 < length <= 2 * self.frame_bytes + 4096:
            raise IntegrityError(f"frame table line {number}: a frame of {length} stored bytes")
        self.bytes_out += length
        self._lengths_end.append(self.bytes_out)
        self._digests += bytes.fromhex(found[3].decode())

    def _finish(self, number: int, line: bytes) -> None:
        found = _END.fullmatch(line)
        if found is None:
            raise IntegrityError(f"frame table line {number}: not the end of a frame table: {_shown(line)}")
        frames, bytes_in, bytes_out = int(found[1]), int(found[2]), int(found[3])
        if (frames, bytes_out) != (len(self), self.bytes_out):
            raise IntegrityError(
                f"frame table line {number}: says {frames} frames with {bytes_out} bytes, "
                f"lists {len(self)} with {self.bytes_out}"
            )
        if frames != frames_of(bytes_in, self.codec, self.frame_bytes):
            raise IntegrityError(
                f"frame table line {number}: {frames} frames of {self.frame_bytes} cannot hold {bytes_in} bytes"
            )
        self.bytes_in = bytes_in


def frames_of(bytes_in: int, codec: Codec, frame_bytes: int) -> int:
    """How many frames this many bytes make; nothing at all makes one empty member, except with `none`."""
    least = 0 if codec is Codec.NONE else 1
    return max(least, -(-bytes_in // frame_bytes))


def _lines(source: Source) -> Iterator[bytes]:
    """The lines without their ends; a last line without an end is garbage, so is one that is too long."""
    rest = b""
    for chunk in chunks_of(source):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE_BYTES:
            raise IntegrityError(f"frame table: not a line of one: {_shown(rest)}")
    if rest:
        raise IntegrityError(f"frame table is cut short in its last line: {_shown(rest)}")


def _shown(line: bytes) -> str:
    return ascii(line[:60].decode("latin-1"))
