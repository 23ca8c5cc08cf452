"""The frame writer: what it makes is whole for the plain tools, what it cannot make it says."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.tools.codecs import Codec
from handlers.tools.cores import cores_of_quota, default_threads
from handlers.tools.frame_reader import decompress_stream
from handlers.tools.frame_table import Frame, FrameTable
from handlers.tools.frames import FrameWriter

COMPRESSED = [codec for codec in Codec if codec is not Codec.NONE]
PROGRAMS = {Codec.ZSTD: "zstd", Codec.GZIP: "gzip", Codec.BZIP2: "bzip2", Codec.XZ: "xz"}
TEXT = b"".join(b"line %d of a text that compresses\n" % number for number in range(20_000))


def frame_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("frame-")]


def program_of(codec: Codec) -> str:
    program = PROGRAMS[codec]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return program


class Sipping:
    """Takes a few bytes at a time, like an unbuffered file on a disk that is nearly full."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """The first 100 bytes."""
        self.taken += chunk[:100]
        return min(100, len(chunk))


class Counting(io.RawIOBase):
    """A reader without descriptor that knows how much was taken from it."""

    def __init__(self, content: bytes) -> None:
        self.rest = memoryview(content)
        self.given = 0

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # narrower than io says
        """As much as there is room for."""
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        self.given += count
        return count


@settings(deadline=None, max_examples=60)
@given(
    codec=st.sampled_from(Codec),
    strength=st.none() | st.integers(0, 9),
    threads=st.integers(1, 3),
    frame_bytes=st.integers(1, 400),
    chunks=st.lists(st.binary(max_size=500), max_size=8),
)
def test_whatever_the_chunks_the_same_bytes_come_back(
    codec: Codec, strength: int | None, threads: int, frame_bytes: int, chunks: list[bytes]
) -> None:
    """For every codec, strength, frame size and way of writing."""
    out = io.BytesIO()

    with FrameWriter(out, codec=codec, strength=strength, threads=threads, frame_bytes=frame_bytes) as frames:
        for chunk in chunks:
            frames.write(chunk)
        stats = frames.close()

    whole = b"".join(chunks)
    assert b"".join(decompress_stream(io.BytesIO(out.getvalue()), codec)) == whole
    assert (stats.bytes_in, stats.bytes_out) == (len(whole), len(out.getvalue()))
    assert frame_threads() == []


@pytest.mark.parametrize("strength", [0, 1, 2, 3, 6, 9, None])
@pytest.mark.parametrize("codec", COMPRESSED)
def test_the_plain_program_accepts_what_we_wrote(codec: Codec, strength: int | None, tmp_path: Path) -> None:
    """`zstd -dc`, `gzip -dc`, `bzip2 -dc` and `xz -dc` bring back the bytes, their `-t` is silent."""
    program = program_of(codec)
    path = tmp_path / f"text{codec.suffix}"

    with path.open("wb") as out, FrameWriter(out, codec=codec, strength=strength, frame_bytes=1 << 17) as frames:
        frames.write(TEXT)

    tested = subprocess.run([program, "-t", path], capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert subprocess.run([program, "-dc", path], capture_output=True, check=True).stdout == TEXT


@pytest.mark.parametrize("codec", Codec)
def test_tar_extracts_a_framed_archive(codec: Codec, tmp_path: Path) -> None:
    """`tar -xf` needs no option to tell it what it is given."""
    if codec is not Codec.NONE:
        program_of(codec)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        member = tarfile.TarInfo("some/file")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    path = tmp_path / f"data.tar{codec.suffix}"

    with path.open("wb") as out, FrameWriter(out, codec=codec, frame_bytes=1 << 16) as frames:
        frames.write(plain.getvalue())

    subprocess.run(["tar", "-C", tmp_path, "-xf", path], check=True)
    assert (tmp_path / "some/file").read_bytes() == TEXT


@pytest.mark.parametrize("codec", COMPRESSED)
def test_nothing_is_a_valid_file_too(codec: Codec, tmp_path: Path) -> None:
    """Empty input makes one empty member that the program accepts."""
    program = program_of(codec)
    path = tmp_path / f"empty{codec.suffix}"

    with path.open("wb") as out, FrameWriter(out, codec=codec) as frames:
        stats = frames.close()

    assert stats.frames == 1
    assert stats.bytes_out == path.stat().st_size > 0
    assert subprocess.run([program, "-dc", path], capture_output=True, check=True).stdout == b""


def test_nothing_without_codec_is_nothing() -> None:
    """Empty input with `none` writes no frame."""
    out = io.BytesIO()

    stats = FrameWriter(out, codec=Codec.NONE).close()

    assert (stats.frames, out.getvalue()) == (0, b"")


def test_a_zstd_frame_tells_its_size_and_has_a_checksum() -> None:
    """The header flags of the first frame say so; no plain tool has to guess."""
    out = io.BytesIO()

    with FrameWriter(out, codec=Codec.ZSTD, frame_bytes=1 << 16) as frames:
        frames.write(TEXT)

    descriptor = out.getvalue()[4]
    has_checksum, size_field, single_segment = descriptor & 4, descriptor >> 6, descriptor & 32
    assert has_checksum
    assert size_field or single_segment


@pytest.mark.parametrize("codec", Codec)
def test_the_bytes_do_not_depend_on_the_threads(codec: Codec) -> None:
    """The same input gives the same file, so that two runs can be compared."""
    stored = []
    for threads in (1, 4, 4):
        out = io.BytesIO()

        with FrameWriter(out, codec=codec, threads=threads, frame_bytes=50_000) as frames:
            frames.write(TEXT)
        stored.append(out.getvalue())

    assert stored[0] == stored[1] == stored[2]


def test_frames_are_told_in_order_with_their_places() -> None:
    """`on_frame` and the table say where each frame is and what it hashes to."""
    out, table = io.BytesIO(), io.BytesIO()
    told: list[Frame] = []

    with FrameWriter(out, codec=Codec.GZIP, frame_bytes=100_000, on_frame=told.append, table_out=table) as frames:
        frames.write(TEXT)

    assert [frame.number for frame in told] == list(range(len(told)))
    assert all(left.offset + left.length == right.offset for left, right in pairwise(told))
    stored = out.getvalue()
    for frame in told:
        assert hashlib.sha256(stored[frame.offset : frame.offset + frame.length]).digest() == frame.sha256
    assert list(FrameTable.parse(io.BytesIO(table.getvalue()))) == told


def test_the_table_can_be_framed_itself() -> None:
    """A table goes through a second writer, so that it is stored compressed."""
    out, stored_table = io.BytesIO(), io.BytesIO()

    with (
        FrameWriter(stored_table, codec=Codec.ZSTD) as table,
        FrameWriter(out, codec=Codec.XZ, frame_bytes=5000, table_out=table) as frames,
    ):
        frames.write(TEXT)

    read = FrameTable.parse(decompress_stream([stored_table.getvalue()], Codec.ZSTD))
    assert (read.bytes_in, read.bytes_out) == (len(TEXT), len(out.getvalue()))


def test_a_pipe_is_pumped_to_its_end() -> None:
    """Through a descriptor, from a program, with every byte shown to the caller."""
    out = io.BytesIO()
    shown = bytearray()

    with (
        subprocess.Popen(["head", "-c", "3000000", "/dev/zero"], stdout=subprocess.PIPE) as program,
        FrameWriter(out, codec=Codec.ZSTD, frame_bytes=1 << 20) as frames,
    ):
        assert program.stdout is not None
        pumped = frames.pump(program.stdout.fileno(), on_piece=shown.extend)
        stats = frames.close()

    assert pumped == stats.bytes_in == 3_000_000
    assert shown == bytes(3_000_000)
    assert b"".join(decompress_stream([out.getvalue()], Codec.ZSTD)) == bytes(3_000_000)


def test_files_and_readers_can_be_pumped_after_each_other(tmp_path: Path) -> None:
    """One stream from a file's descriptor, an open raw file, a reader without descriptor, and a write."""
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    out = io.BytesIO()

    with FrameWriter(out, codec=Codec.GZIP, frame_bytes=90_001) as frames, path.open("rb", buffering=0) as raw:
        frames.pump(raw)
        raw.seek(0)
        frames.pump(raw.fileno())
        frames.pump(Counting(TEXT))
        frames.write(memoryview(TEXT))

    assert b"".join(decompress_stream([out.getvalue()], Codec.GZIP)) == TEXT * 4


def test_an_output_that_takes_a_few_bytes_gets_them_all() -> None:
    """A short write is continued, not lost."""
    out = Sipping()

    with FrameWriter(out, codec=Codec.NONE, frame_bytes=1000) as frames:
        frames.write(TEXT[:10_500])

    assert out.taken == TEXT[:10_500]


def test_close_can_be_repeated() -> None:
    """The second close says what the first one said."""
    frames = FrameWriter(io.BytesIO(), codec=Codec.ZSTD)
    frames.write(TEXT)

    assert frames.close() == frames.close()
    with pytest.raises(ValueError, match="closed or aborted"):
        frames.write(b"more")


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("strength", [-1, 10, 100])
def test_a_strength_out_of_range_is_refused(codec: Codec, strength: int) -> None:
    """The message names the codec and the value."""
    with pytest.raises(ValueError, match=f"{codec} must be 0 to 9, not {strength}"):
        FrameWriter(io.BytesIO(), codec=codec, strength=strength)


@pytest.mark.parametrize(("threads", "frame_bytes"), [(0, 100), (-1, 100), (1, 0), (1, 1 << 40)])
def test_impossible_sizes_are_refused(threads: int, frame_bytes: int) -> None:
    """No thread, or frames that no reader would accept."""
    with pytest.raises(ValueError, match="frames"):
        FrameWriter(io.BytesIO(), codec=Codec.NONE, threads=threads, frame_bytes=frame_bytes)


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("", None),
        ("1 0", None),
    ],
)
def test_a_containers_share_of_time_limits_the_threads(cpu_max: str, cores: int | None) -> None:
    """On a node with 64 cores a container with 2 must not start 64 threads: each one takes memory."""
    assert cores_of_quota(cpu_max) == cores


def test_there_is_always_a_thread() -> None:
    """On this machine, whatever it is."""
    assert 1 <= default_threads() <= 16
