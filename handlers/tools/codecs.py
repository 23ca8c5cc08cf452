"""How one frame is compressed with each codec, or brought back.

Compressed frames are complete members of their format: a file of several is one valid stream for the plain tools.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from isal import isal_zlib
from zlib_ng import zlib_ng

from handlers.errors import IntegrityError, PermanentError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


Buffer = bytes | bytearray | memoryview
"""What the codecs read."""

Compress = Callable[[memoryview], Buffer]
"""Turns the bytes of one frame into one member; safe to call from several threads."""


class Codec(StrEnum):
    """How the frames of a part are compressed; `none` cuts frames and leaves them as they are."""

    NONE = "none"
    ZSTD = "zstd"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"

    @property
    def suffix(self) -> str:
        """What a file of this codec is called by, dot included; empty for `none`."""
        return _SUFFIXES[self]


_SUFFIXES = {Codec.NONE: "", Codec.ZSTD: ".zst", Codec.GZIP: ".gz", Codec.BZIP2: ".bz2", Codec.XZ: ".xz"}

DEFAULT_STRENGTH = {Codec.NONE: 0, Codec.ZSTD: 1, Codec.GZIP: 1, Codec.BZIP2: 9, Codec.XZ: 6}
"""The strength that None stands for."""

_ZSTD_LEVELS = (1, 2, 3, 5, 7, 9, 12, 15, 17, 19)

# igzip is several times faster than anything else and has three useful levels (its 0 is slower than its 1 here);
# zlib-ng's 1 and 2 are slower than igzip's 3 without being smaller.
_IGZIP_LEVELS = {0: 1, 1: 2, 2: 3}

_XZ_DICTIONARIES = tuple(size << 10 for size in (256, 1024, 2048, 4096, 4096, 8192, 8192, 16384, 32768, 65536))
"""Dictionary of each preset in bytes. Source: xz(1), "-0 ... -9"."""

_XZ_SMALLEST_DICTIONARY = 4096

DECODER_MEMORY_BYTES = 160 << 20
"""What decoding may take for itself; `zstd -22` and `xz -9`, the greediest ordinary settings, stay below it."""

_ZSTD_WINDOW_LOG = 27

_GZIP_WBITS = 31
"""15 bits of window, and 16 to ask zlib for the gzip container."""


def check_strength(codec: Codec, strength: int | None) -> int:
    """The strength 0..9 to use, the codec's default for None. Raises ValueError naming the codec and the value."""
    if strength is None:
        return DEFAULT_STRENGTH[codec]
    if not 0 <= strength <= 9:
        raise ValueError(f"compression strength of {codec} must be 0 to 9, not {strength}")
    return strength


def compressor(codec: Codec, strength: int | None, frame_bytes: int) -> Compress:
    """A function that makes a complete member of a frame of at most frame_bytes.

    With `none` it returns what it is given, not a copy. The same frame gives the same bytes, whatever the thread.
    Raises ValueError for a strength outside 0..9.
    """
    chosen = check_strength(codec, strength)
    match codec:
        case Codec.NONE:
            return lambda frame: frame
        case Codec.ZSTD:
            return _ZstdCompress(_ZSTD_LEVELS[chosen])
        case Codec.GZIP:
            return _gzip_compress(chosen)
        case Codec.BZIP2:
            return lambda frame: bz2.compress(frame, max(1, chosen))
        case Codec.XZ:
            return _xz_compress(chosen, frame_bytes)


class _ZstdCompress(threading.local):
    """One compression context per thread, kept: making one costs as much as a small frame."""

    def __init__(self, level: int) -> None:
        # The content size is written too, because a whole frame is given at once.
        self._compressor = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: level,
                zstd.CompressionParameter.checksum_flag: 1,
            }
        )

    def __call__(self, frame: memoryview) -> bytes:
        return self._compressor.compress(frame, zstd.ZstdCompressor.FLUSH_FRAME)


def _gzip_compress(strength: int) -> Compress:
    igzip_level = _IGZIP_LEVELS.get(strength)
    if igzip_level is not None:
        return lambda frame: bytes(isal_zlib.compress(frame, igzip_level, _GZIP_WBITS))
    return lambda frame: zlib_ng.compress(frame, strength, _GZIP_WBITS)


def _xz_compress(preset: int, frame_bytes: int) -> Compress:
    # A dictionary beyond the frame finds nothing more, and costs about eleven times its size per thread.
    dictionary = max(_XZ_SMALLEST_DICTIONARY, min(_XZ_DICTIONARIES[preset], frame_bytes))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}]
    return lambda frame: lzma.compress(frame, format=lzma.FORMAT_XZ, filters=filters)


class Decoder(Protocol):
    """Decodes one member; the protocol that bz2, lzma and zstd of the standard library share."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before more goes in."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end of the member."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most max_length (which is positive) bytes more; input that is not used yet is kept."""


class _GzipDecoder:
    """zlib's way of bounding its output, turned into the one that the others share."""

    def __init__(self) -> None:
        self._inflate = zlib_ng.decompressobj(_GZIP_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._inflate.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inflate.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        held = self._inflate.unconsumed_tail
        out = bytes(self._inflate.decompress(held + data if held else data, max_length))
        # A full output may hide more that zlib holds inside, even when all the input is used up.
        self.needs_input = not self.eof and not self._inflate.unconsumed_tail and len(out) < max_length
        return out


_ZLIB_ERROR: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # its stub calls the class an instance
_DECODE_ERRORS = (zstd.ZstdError, _ZLIB_ERROR, lzma.LZMAError, OSError, ValueError, EOFError)
"""What the libraries raise for damaged data; OSError and ValueError are bz2's words for it."""


def decoder(codec: Codec) -> Decoder:
    """A decoder of one member. `none` has no members: ValueError."""
    match codec:
        case Codec.NONE:
            raise ValueError("codec none has nothing to decode")
        case Codec.ZSTD:
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
        case Codec.GZIP:
            return _GzipDecoder()
        case Codec.BZIP2:
            return bz2.BZ2Decompressor()
        case Codec.XZ:
            return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=DECODER_MEMORY_BYTES)


def decode(decoding: Decoder, data: bytes, max_length: int, *, codec: Codec) -> bytes:
    """What the decoder makes of data, at most max_length bytes.

    Raises IntegrityError for damaged data, PermanentError for a stream that asks for more memory than we give.
    """
    try:
        return decoding.decompress(data, max_length)
    except _DECODE_ERRORS as error:
        if "memory" in str(error).lower():
            raise PermanentError(
                f"decoding this {codec} stream takes more than {DECODER_MEMORY_BYTES} bytes of memory: {error}",
                hint=f"decompress it with the {codec} program, which can be told to use more",
            ) from error
        raise IntegrityError(f"not a valid {codec} stream: {error}") from error


def decode_frame(codec: Codec, frame: bytes, size_bytes: int) -> bytes:
    """The size_bytes bytes that this frame was made from, never allocating for more.

    Raises IntegrityError when the frame is damaged, is not exactly one member or holds another number of bytes.
    """
    if codec is Codec.NONE:
        if len(frame) != size_bytes:
            raise IntegrityError(f"frame has {len(frame)} bytes, not {size_bytes}")
        return frame
    decoding = decoder(codec)
    out = decode(decoding, frame, size_bytes + 1, codec=codec)
    if len(out) > size_bytes:
        raise IntegrityError(f"{codec} frame holds more than the {size_bytes} bytes it should")
    if not decoding.eof:
        raise IntegrityError(f"{codec} frame is cut short")
    if decoding.unused_data or len(out) != size_bytes:
        raise IntegrityError(f"{codec} frame holds {len(out)} bytes and {len(decoding.unused_data)} stray ones")
    return out
