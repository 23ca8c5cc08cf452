"""Reading framed streams back: every byte is checked, memory is bounded, other programs' files are welcome."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import threading
import tracemalloc
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from handlers.errors import IntegrityError, PermanentError
from handlers.tools.codecs import Codec, decode_frame
from handlers.tools.frame_reader import CHUNK_BYTES, FrameReader, decompress_frames, decompress_stream
from handlers.tools.frame_table import FrameTable
from handlers.tools.frames import FrameWriter
from tests.services.server import program

COMPRESSED = [codec for codec in Codec if codec is not Codec.NONE]
FRAME = 700
CONTENT = b"".join(b"%d: %s\n" % (at, hashlib.sha256(b"%d" % at).hexdigest().encode()) for at in range(120))


@dataclass(frozen=True)
class Stored:
    """A part and its table, as they lie in a store."""

    data: bytes
    table_text: bytes

    @property
    def table(self) -> FrameTable:
        """As a reader has it."""
        return FrameTable.parse(io.BytesIO(self.table_text))


@cache
def stored(codec: Codec, content: bytes = CONTENT, frame_bytes: int = FRAME) -> Stored:
    out, table = io.BytesIO(), io.BytesIO()
    with FrameWriter(out, codec=codec, frame_bytes=frame_bytes, threads=2, table_out=table) as frames:
        frames.write(content)
    return Stored(out.getvalue(), table.getvalue())


class Fetching:
    """Answers range requests, remembering them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, offset: int, length: int) -> bytes:
        """What a store gives."""
        self.asked.append((offset, length))
        return self.data[offset : offset + length]


def damaged(data: bytes, at: int, flip: int) -> bytes:
    return data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("frame-")]


@settings(deadline=None)
@given(codec=st.sampled_from(Codec), offset=st.integers(0, len(CONTENT) + FRAME), length=st.integers(0, len(CONTENT)))
def test_random_access_is_a_slice(codec: Codec, offset: int, length: int) -> None:
    """Any range gives what slicing the content gives, and fetches only the frames that hold it."""
    part = stored(codec)
    fetch = Fetching(part.data)

    read = b"".join(FrameReader(fetch, part.table).read_at(offset, length))

    assert read == CONTENT[offset : offset + length]
    end = min(offset + length, len(CONTENT))
    assert len(fetch.asked) == (-(-end // FRAME) - offset // FRAME if offset < end else 0)


def test_neighbours_in_one_frame_are_fetched_once() -> None:
    """The last two frames stay in memory: many small members cost one request."""
    part = stored(Codec.ZSTD)
    fetch = Fetching(part.data)
    reader = FrameReader(fetch, part.table)

    for at in range(0, 2 * FRAME, 50):
        assert b"".join(reader.read_at(at, 60)) == CONTENT[at : at + 60]

    assert len(fetch.asked) == 3


@settings(deadline=None)
@given(st.data(), st.sampled_from(Codec), st.integers(1, 255))
def test_any_wrong_byte_of_a_frame_is_found(data: st.DataObject, codec: Codec, flip: int) -> None:
    """By random access and by the parallel reader, which name the frame and its place."""
    part = stored(codec)
    at = data.draw(st.integers(0, len(part.data) - 1))
    bad = damaged(part.data, at, flip)
    hit = next(frame for frame in part.table if frame.offset <= at < frame.offset + frame.length)
    named = rf"frame {hit.number} \(stored bytes {hit.offset} to {hit.offset + hit.length}\) has SHA-256"

    with pytest.raises(IntegrityError, match=named):
        list(FrameReader(Fetching(bad), part.table).read_at(0, len(CONTENT)))
    with pytest.raises(IntegrityError, match=named):
        list(decompress_frames([bad], part.table, threads=2))


@pytest.mark.parametrize("codec", Codec)
def test_a_short_answer_is_found(codec: Codec) -> None:
    """A store that gives less than asked for is not believed."""
    part = stored(codec)

    with pytest.raises(IntegrityError, match=r"frame \d+ .* is short"):
        list(FrameReader(Fetching(part.data[:-1]), part.table).read_at(0, len(CONTENT)))
    with pytest.raises(IntegrityError, match=r"frame \d+ .* is short"):
        list(decompress_frames([part.data[:-1]], part.table))


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", [1, 13, 1 << 20])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, CONTENT[: 2 * FRAME]], ids=["empty", "one", "many", "even"])
def test_all_frames_come_back_in_order(codec: Codec, size: int, content: bytes) -> None:
    """From chunks of any size, and from an open file."""
    part = stored(codec, content)

    from_chunks = b"".join(decompress_frames(pieces(part.data, size), part.table, threads=3))
    from_file = b"".join(decompress_frames(io.BytesIO(part.data), part.table))

    assert from_chunks == from_file == content


def test_bytes_beyond_the_table_are_found() -> None:
    """A part that is longer than its table says is not the one that was written."""
    part = stored(Codec.ZSTD)

    with pytest.raises(IntegrityError, match="after the"):
        list(decompress_frames([part.data, b"x"], part.table))


def test_stopping_early_leaves_no_thread() -> None:
    """Closing the iterator is enough."""
    part = stored(Codec.XZ)
    chunks = decompress_frames([part.data], part.table, threads=2)
    next(chunks)

    chunks.close()  # type: ignore[attr-defined]  # an iterator to the caller, a generator in fact

    assert decode_threads() == []


@settings(deadline=None)
@given(codec=st.sampled_from(Codec), size=st.integers(1, 3000))
def test_a_stream_of_members_is_read_in_any_chunks(codec: Codec, size: int) -> None:
    """Members that start and end anywhere within a chunk."""
    part = stored(codec)

    assert b"".join(decompress_stream(pieces(part.data, size), codec)) == CONTENT


@pytest.mark.parametrize(
    ("codec", "command"),
    [
        (Codec.ZSTD, "zstd -c"),
        (Codec.ZSTD, "zstd -T2 -19 -c"),
        (Codec.ZSTD, "zstd --ultra -22 -c"),
        (Codec.ZSTD, "pzstd -c"),
        (Codec.ZSTD, "zstd --no-check -c"),
        (Codec.GZIP, "gzip -c"),
        (Codec.GZIP, "gzip -9c"),
        (Codec.GZIP, "pigz -c"),
        (Codec.BZIP2, "bzip2 -c"),
        (Codec.XZ, "xz -c"),
        (Codec.XZ, "xz -9c"),
        (Codec.XZ, "xz -T2 --block-size=10000 -c"),
        (Codec.XZ, "xz --check=sha256 -c"),
    ],
)
def test_files_of_other_programs_are_read(codec: Codec, command: str) -> None:
    """Single files, and several of them concatenated with ours."""
    argv = command.split()
    program(argv[0])
    theirs = subprocess.run(argv, input=CONTENT, capture_output=True, check=True).stdout

    alone = b"".join(decompress_stream(pieces(theirs, 999), codec))
    joined = b"".join(decompress_stream([theirs, stored(codec).data, theirs], codec))

    assert alone == CONTENT
    assert joined == CONTENT * 3


def test_a_gzip_header_with_name_and_comment_is_skipped() -> None:
    """Even when it arrives a byte at a time."""
    with io.BytesIO() as buffer:
        with gzip.GzipFile("a-name-of-a-file", "wb", fileobj=buffer) as file:
            file.write(CONTENT)
        named = buffer.getvalue()

    assert b"".join(decompress_stream(pieces(named, 1), Codec.GZIP)) == CONTENT


@pytest.mark.parametrize(("codec", "zeros"), [(Codec.GZIP, 3), (Codec.GZIP, 10_000), (Codec.XZ, 4), (Codec.XZ, 512)])
def test_zero_padding_is_skipped(codec: Codec, zeros: int) -> None:
    """Between members and at the end, however it is cut."""
    data = stored(codec).data
    padded = data + bytes(zeros) + data + bytes(zeros)

    assert b"".join(decompress_stream(pieces(padded, 1000), codec)) == CONTENT * 2


def test_padding_that_xz_forbids_is_found() -> None:
    """Stream padding comes in fours; anything else is garbage."""
    with pytest.raises(IntegrityError, match="no multiple of four"):
        list(decompress_stream([stored(Codec.XZ).data, bytes(5)], Codec.XZ))


@settings(deadline=None)
@given(st.data(), st.sampled_from(COMPRESSED))
def test_a_stream_cut_anywhere_is_found(data: st.DataObject, codec: Codec) -> None:
    """Except between two members, where only the table can tell."""
    part = stored(codec)
    cut = data.draw(st.integers(0, len(part.data) - 1))
    assume(all(frame.offset != cut for frame in part.table if frame.number))

    with pytest.raises(IntegrityError):
        list(decompress_stream([part.data[:cut]], codec))


@settings(deadline=None)
@given(codec=st.sampled_from(COMPRESSED), garbage=st.binary(min_size=1, max_size=50))
def test_trailing_garbage_is_found(codec: Codec, garbage: bytes) -> None:
    """What follows the last member must be another one, or padding."""
    assume(garbage.strip(b"\0"))

    with pytest.raises(IntegrityError):
        list(decompress_stream([stored(codec).data, garbage], codec))


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(COMPRESSED), st.integers(1, 255))
def test_a_wrong_byte_never_gives_wrong_content(data: st.DataObject, codec: Codec, flip: int) -> None:
    """Without a table the members' own checksums find it; a flip that changes no content (a time stamp) may pass."""
    part = stored(codec)
    at = data.draw(st.integers(0, len(part.data) - 1))

    try:
        read = b"".join(decompress_stream([damaged(part.data, at, flip)], codec))
    except (IntegrityError, PermanentError):
        return

    assert read == CONTENT


BOMB_READER = """
import resource, sys
from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec, decode_frame
from handlers.tools.frame_reader import decompress_stream
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = largest = 0
for chunk in decompress_stream(open(sys.argv[1], "rb"), Codec(sys.argv[2])):
    total += len(chunk)
    largest = max(largest, len(chunk))
try:
    decode_frame(Codec(sys.argv[2]), open(sys.argv[1], "rb").read(), 100)
except IntegrityError as error:
    assert "more than the 100 bytes" in str(error)
print(total, largest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
BOMB_BYTES = 256 << 20


def bomb(codec: Codec) -> bytes:
    """One member of zeros, many times larger than what may be allocated."""
    zeros = bytes(BOMB_BYTES)
    match codec:
        case Codec.GZIP:
            return gzip.compress(zeros, 1)
        case Codec.BZIP2:
            return bz2.compress(zeros)
        case Codec.XZ:
            return lzma.compress(zeros, preset=0)
        case _:
            return subprocess.run(["zstd", "-c"], input=zeros, capture_output=True, check=True).stdout


@pytest.mark.parametrize("codec", [Codec.ZSTD, Codec.GZIP, pytest.param(Codec.XZ, marks=pytest.mark.slow)])
def test_a_bomb_is_read_in_bounded_memory(codec: Codec, tmp_path: Path) -> None:
    """256 MiB from a few KiB: chunks stay small, and so does the process, as a stream and as a frame."""
    data = bomb(codec)
    path = tmp_path / "bomb"
    path.write_bytes(data)

    argv = [sys.executable, "-c", BOMB_READER, str(path), str(codec)]
    total, largest, grown_mib = map(int, subprocess.run(argv, capture_output=True, check=True).stdout.split())

    assert total == BOMB_BYTES
    assert largest <= CHUNK_BYTES
    assert grown_mib < 32


def test_a_stream_that_asks_for_too_much_memory_is_refused() -> None:
    """A header can demand gigabytes; we say which program could still be told to read it."""
    zstd_2_gib_window = bytes.fromhex("28b52ffd") + bytes([0, (31 - 10) << 3]) + bytes.fromhex("010000")
    xz = bytearray(lzma.compress(b"x"))
    header = xz[12:20]
    header[4] = 40
    xz_4_gib_dictionary = xz[:12] + header + zlib.crc32(header).to_bytes(4, "little") + xz[24:]

    for codec, data in ((Codec.ZSTD, zstd_2_gib_window), (Codec.XZ, bytes(xz_4_gib_dictionary))):
        with pytest.raises(PermanentError, match="memory") as refused:
            list(decompress_stream([data], codec))
        assert str(codec) in (refused.value.hint or "")


@pytest.mark.parametrize("codec", Codec)
def test_a_frame_of_another_size_is_refused(codec: Codec) -> None:
    """The table promises the size of each frame; more, fewer or none are all wrong."""
    frame = stored(codec, CONTENT, len(CONTENT)).data

    assert decode_frame(codec, frame, len(CONTENT)) == CONTENT
    for size in (len(CONTENT) - 1, len(CONTENT) + 1, 1):
        with pytest.raises(IntegrityError):
            decode_frame(codec, frame, size)
    with pytest.raises(IntegrityError):
        decode_frame(codec, frame + frame, len(CONTENT))


def test_negative_ranges_are_refused() -> None:
    """Before anything is fetched."""
    part = stored(Codec.NONE)
    reader = FrameReader(Fetching(part.data), part.table)

    with pytest.raises(ValueError, match="cannot read"):
        reader.read_at(-1, 5)
    with pytest.raises(ValueError, match="cannot read"):
        reader.read_at(5, -1)


def test_many_frames_in_one_chunk_of_the_source_cost_no_memory() -> None:
    """A store gives chunks of some MiB, which hold a hundred well compressed frames: none of it may pile up."""
    table_out, out = io.BytesIO(), io.BytesIO()
    with FrameWriter(out, codec=Codec.ZSTD, frame_bytes=1 << 16, table_out=table_out) as frames:
        frames.write(os.urandom(1 << 15) * 2 * 256)
    stored = out.getvalue()
    table = FrameTable.parse([table_out.getvalue()])
    tracemalloc.start()

    for _ in decompress_frames([stored], table):
        pass

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 256
    assert peak < len(stored)
