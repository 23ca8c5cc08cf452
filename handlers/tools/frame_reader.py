"""Turns what was stored back into the bytes that went in, trusting nothing it reads.

`FrameReader` fetches single frames by the frame table, `decompress_frames` decodes a whole part on all cores by
it, `decompress_stream` needs no table: it reads any file of the format, whoever wrote it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec, Decoder, decode, decode_frame, decoder
from handlers.tools.cores import default_threads
from handlers.tools.frame_table import Frame, FrameTable, Source, chunks_of

CHUNK_BYTES = 1 << 20
"""The longest chunk that `decompress_stream` yields."""

_FEED_BYTES = 1 << 16
"""Bytes given to a decoder at once: it hands back what belongs to the next member, which must stay cheap to copy."""

_CACHED_FRAMES = 2


class FrameReader:
    """Random access to the uncompressed bytes of a stored part. For one thread at a time."""

    def __init__(self, read_range: Callable[[int, int], bytes], table: FrameTable) -> None:
        """`read_range(offset, length)` gives stored bytes; what it raises passes through unchanged."""
        self._read_range = read_range
        self._table = table
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def read_at(self, offset: int, length: int) -> Iterator[bytes]:
        """The uncompressed bytes from offset on, at most length, in chunks of at most a frame; fewer at the end.

        Only the frames that hold them are fetched; the last two stay in memory. Raises IntegrityError, naming
        the frame, before it yields a byte of a frame whose stored bytes are wrong or short.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"cannot read {length} bytes at {offset}")
        return self._slices(offset, min(offset + length, self._table.bytes_in))

    def _slices(self, start: int, end: int) -> Iterator[bytes]:
        size = self._table.frame_bytes
        for number in range(start // size, -(-end // size) if start < end else 0):
            base = number * size
            yield self._frame(number)[max(0, start - base) : end - base]

    def _frame(self, number: int) -> bytes:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        frame = self._table[number]
        content = _content(self._table.codec, frame, self._read_range(frame.offset, frame.length))
        self._cache[number] = content
        if len(self._cache) > _CACHED_FRAMES:
            self._cache.popitem(last=False)
        return content


def decompress_frames(source: Source, table: FrameTable, *, threads: int | None = None) -> Iterator[bytes]:
    """The uncompressed bytes of a whole part, in order, a frame at a time, decoded by several threads.

    About `threads` + 2 frames are in memory. Raises IntegrityError, naming the frame, before it yields a byte of
    a frame that is wrong or short, and at the end when the part has more bytes than its table. Closing the
    iterator early, or any error, ends the threads.
    """
    workers = threads or default_threads()
    stored = _Stored(source)
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="frame-decode") as pool:
        try:
            for frame in table:
                data = stored.take(frame.length)
                pending.append(pool.submit(_content, table.codec, frame, data))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
    if stored.take(1):
        raise IntegrityError(f"there are bytes after the {table.bytes_out} that the frame table lists")


def decompress_stream(source: Source, codec: Codec) -> Iterator[bytes]:
    """The uncompressed bytes of a file of this codec, of one member or of many, written by any program.

    Memory is bounded whatever the input: chunks have at most CHUNK_BYTES. Raises IntegrityError when the input
    is damaged, empty, cut short or followed by something else. Only a cut exactly between two members cannot be
    seen, with `none` nothing can: the frame table or the part's checksum tells. Zero padding, which xz allows
    between streams just as tapes add it to gzip, is skipped.
    """
    if codec is Codec.NONE:
        yield from chunks_of(source)
        return
    decoding: Decoder | None = None
    members = 0
    padding = 0
    for fed in _fed(source):
        data = fed
        while data:
            if decoding is None:
                stripped = data.lstrip(b"\0") if codec in {Codec.XZ, Codec.GZIP} and members else data
                padding += len(data) - len(stripped)
                data = stripped
                if not data:
                    break
                _check_padding(codec, padding)
                decoding = decoder(codec)
            yield from _decoded(decoding, data, codec, members)
            data = b""
            if decoding.eof:
                data = decoding.unused_data
                decoding = None
                padding = 0
                members += 1
    if decoding is not None or not members:
        raise IntegrityError(f"{codec} stream is cut short in member {members + 1}")
    _check_padding(codec, padding)


def _decoded(decoding: Decoder, data: bytes, codec: Codec, members: int) -> Iterator[bytes]:
    """All that the decoder makes of data, a bounded chunk at a time."""
    while True:
        try:
            out = decode(decoding, data, CHUNK_BYTES, codec=codec)
        except IntegrityError as error:
            after = f" after {members} whole members" if members else ""
            raise IntegrityError(f"{error.message}{after}") from error
        if out:
            yield out
        if decoding.eof or decoding.needs_input:
            return
        data = b""


def _check_padding(codec: Codec, padding: int) -> None:
    if codec is Codec.XZ and padding % 4:
        raise IntegrityError(f"xz stream is followed by {padding} zero bytes, which is no multiple of four")


def _fed(source: Source) -> Iterator[bytes]:
    """The source in pieces that are small enough for a decoder."""
    for chunk in chunks_of(source):
        if len(chunk) <= _FEED_BYTES:
            yield chunk
        else:
            yield from (chunk[at : at + _FEED_BYTES] for at in range(0, len(chunk), _FEED_BYTES))


def _content(codec: Codec, frame: Frame, data: bytes) -> bytes:
    """What the frame holds, once its stored bytes are known to be the ones that were written."""
    if len(data) != frame.length:
        raise IntegrityError(f"{frame} is short: only {len(data)} of {frame.length} bytes are there")
    found = hashlib.sha256(data).digest()
    if found != frame.sha256:
        raise IntegrityError(f"{frame} has SHA-256 {found.hex()}, its table says {frame.sha256.hex()}")
    try:
        return decode_frame(codec, data, frame.size_bytes)
    except IntegrityError as error:
        raise IntegrityError(f"{frame}: {error.message}") from error


class _Stored:
    """Reads exact numbers of bytes from chunks of any size; holds one chunk of the source at a time."""

    def __init__(self, source: Source) -> None:
        self._chunks = iter(chunks_of(source))
        self._rest = memoryview(b"")

    def take(self, length: int) -> bytes:
        """The next length bytes; fewer only at the end."""
        taken: list[memoryview] = []
        missing = length
        while missing:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            taken.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(taken[-1])
        return b"".join(taken)
