"""The frame table believes nothing that does not add up."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec
from handlers.tools.frame_table import FrameTable, end_line, header_line
from handlers.tools.frames import FrameWriter

SUM = b"ab" * 32
GOOD = b"holdfast-frames 1 zstd 100\n0 60 %s\n60 50 %s\nend 2 130 110\n" % (SUM, SUM)


def test_a_good_table_is_read() -> None:
    """With the place, the stored and the uncompressed size, and the sum of each frame."""
    table = FrameTable.parse(io.BytesIO(GOOD))

    assert (table.codec, table.frame_bytes, table.bytes_in, table.bytes_out) == (Codec.ZSTD, 100, 130, 110)
    assert [(frame.offset, frame.length, frame.size_bytes) for frame in table] == [(0, 60, 100), (60, 50, 30)]
    assert {frame.sha256.hex().encode() for frame in table} == {SUM}
    with pytest.raises(IndexError):
        table[2]


@given(st.integers(1, 200))
def test_a_table_is_read_in_any_chunks(size: int) -> None:
    """Lines that are cut by chunks are put together again."""
    chunks = [GOOD[at : at + size] for at in range(0, len(GOOD), size)]

    assert len(FrameTable.parse(chunks)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"", "line 1: not the start"),
        (b"\n", "line 1: not the start"),
        (GOOD.replace(b"frames 1", b"frames 2"), "line 1: not the start"),
        (GOOD.replace(b"zstd", b"lzo"), "unknown codec lzo"),
        (GOOD.replace(b"zstd 100", b"zstd 0"), "frames of 0 bytes"),
        (GOOD.replace(b"zstd 100", b"zstd 99999999999"), "frames of 99999999999 bytes"),
        (GOOD.replace(b"60 50", b"61 50"), "line 3: gap"),
        (GOOD.replace(b"60 50", b"59 50"), "line 3: overlap"),
        (GOOD.replace(b"0 60", b"0 0"), "line 2: a frame of 0"),
        (GOOD.replace(b"60 50", b"60 50000000"), "line 3: a frame of 50000000"),
        (GOOD.replace(b"60 50", b"60 +50"), "line 3: not a frame"),
        (GOOD.replace(b"60 50", b"60 050"), "line 3: not a frame"),
        (GOOD.replace(b"60 50", b"60  50"), "line 3: not a frame"),
        (GOOD.replace(SUM, SUM[:-2]), "line 2: not a frame"),
        (GOOD.replace(SUM, SUM.upper()), "line 2: not a frame"),
        (GOOD.replace(b"\n", b"\r\n"), "line 1: not the start"),
        (GOOD.replace(b"end 2", b"end 3"), "line 4: says 3 frames"),
        (GOOD.replace(b"130 110", b"130 111"), "with 111 bytes"),
        (GOOD.replace(b"130 110", b"201 110"), "cannot hold 201 bytes"),
        (GOOD.replace(b"130 110", b"100 110"), "cannot hold 100 bytes"),
        (GOOD.replace(b"end 2 130 110", b"end 2 130"), "not the end"),
        (GOOD[: GOOD.index(b"end")], "cut short after 2 frames"),
        (GOOD[:-1], "cut short in its last line"),
        (GOOD + b"\n", "more after its end"),
        (GOOD + b"x", "cut short in its last line"),
        (GOOD + GOOD, "more after its end"),
        (b"x" * 1_000_000, "not a line"),
    ],
)
def test_a_table_that_does_not_add_up_is_refused(wrong: bytes, message: str) -> None:
    """Garbage, gaps, overlaps, impossible sizes and cuts are named."""
    with pytest.raises(IntegrityError, match=message):
        FrameTable.parse(io.BytesIO(wrong))


@given(st.binary(max_size=300) | st.integers(0, len(GOOD) - 1).map(lambda cut: GOOD[:cut]))
def test_garbage_is_refused(garbage: bytes) -> None:
    """Whatever it is, the answer is an IntegrityError."""
    with pytest.raises(IntegrityError):
        FrameTable.parse([garbage])


@pytest.mark.parametrize("codec", Codec)
def test_the_table_of_nothing_is_valid(codec: Codec) -> None:
    """An empty part has a table like any other."""
    table = io.BytesIO()

    with FrameWriter(io.BytesIO(), codec=codec, table_out=table) as frames:
        stats = frames.close()

    read = FrameTable.parse(io.BytesIO(table.getvalue()))
    assert (len(read), read.bytes_in, read.bytes_out) == (stats.frames, 0, stats.bytes_out)


@pytest.mark.slow
def test_a_table_of_half_a_terabyte_is_small() -> None:
    """125 000 frames take a few megabytes."""
    frames = 125_000
    lines = b"".join(b"%d 1000000 %s\n" % (number * 1_000_000, SUM) for number in range(frames))
    whole = header_line(Codec.ZSTD, 4 << 20) + lines + end_line(frames, frames * (4 << 20), frames * 1_000_000)

    tracemalloc.start()
    table = FrameTable.parse(io.BytesIO(whole))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(table) == frames
    assert kept < 8 << 20
