"""Sets as the tar handler stores them: made by real GNU tar from a real tree, or by hand from single blocks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from handlers.contract import BackupId, Frames, Part, Progress
from handlers.tools.checksum import checked
from handlers.tools.codecs import Codec
from handlers.tools.frames import FrameWriter
from tests.workshop.comparer import Photograph, photograph

LISTING = (
    "--verbose",
    "--verbose",
    "--full-time",
    "--utc",
    "--block-number",
    "--quoting-style=c",
    "--numeric-owner",
)
WRITING = ("--create", "--format=posix", "--sparse", "--xattrs", "--acls", *LISTING)


class Quiet:
    """A control that never stops anything and remembers the last report."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.checkpoints = 0

    def checkpoint(self) -> None:
        """Count."""
        self.checkpoints += 1

    def report(self, progress: Progress) -> None:
        """Remember."""
        self.progress = progress

    def started(self) -> None:
        """Nothing."""


class StoredSet:
    """A committed set that lies in memory; counts what is read of it."""

    def __init__(self, level: int, stored: Mapping[str, tuple[Part, bytes]]) -> None:
        self.level = level
        self.backup_id = BackupId(f"set-{level}")
        self.parts = {name: part for name, (part, _) in stored.items()}
        self.content = {name: content for name, (_, content) in stored.items()}
        self.ranges: list[tuple[str, int, int]] = []

    def stream(self, name: str) -> Iterator[bytes]:
        """The whole part, checked as the contract asks."""
        content = self.content[name]
        part = self.parts[name]
        chunks = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
        return checked(chunks, size_bytes=part.size_bytes, sha256=part.sha256, name=name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """The bytes as stored."""
        self.ranges.append((name, offset, length))
        return self.content[name][offset : offset + length]


def part(name: str, content: bytes, **more: Any) -> tuple[Part, bytes]:
    """A finished part."""
    return Part(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **more), content


def stored_set(
    level: int,
    archive: bytes,
    index: bytes = b"",
    snapshot: bytes = b"",
    *,
    codec: Codec = Codec.ZSTD,
    frame_bytes: int = 64 << 10,
) -> StoredSet:
    """A set of this archive with its listing and snapshot file."""
    data, table = framed(archive, codec, frame_bytes)
    name = "data.tar" + codec.suffix
    frames = Frames(count=table.count(b"\n") - 2, frame_bytes=frame_bytes, table="data.frames")
    return StoredSet(
        level,
        {
            name: part(name, data, codec=str(codec), frames=frames),
            "data.frames": part("data.frames", table),
            "index.zst": part("index.zst", framed(index, Codec.ZSTD, 1 << 20)[0], codec="zstd"),
            "tree.snar.zst": part("tree.snar.zst", framed(snapshot, Codec.ZSTD, 1 << 20)[0], codec="zstd"),
        },
    )


def framed(content: bytes, codec: Codec, frame_bytes: int) -> tuple[bytes, bytes]:
    """The content as stored, and its frame table."""
    out, table = _Memory(), _Memory()
    with FrameWriter(out, codec=codec, frame_bytes=frame_bytes, table_out=table, threads=1) as writer:
        writer.write(content)
    return bytes(out.content), bytes(table.content)


class _Memory:
    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        self.content += chunk
        return len(chunk)


class Chain:
    """The levels of one subject, each made by GNU tar with the snapshot file of the one before."""

    def __init__(self, subject: Path, scratch: Path, **how: Any) -> None:
        self.subject = subject
        self.scratch = scratch
        self.sets: list[StoredSet] = []
        self.snapshot = b""
        self.names = ["."]
        self._how = how
        scratch.mkdir(parents=True, exist_ok=True)

    def back_up(self, *options: str) -> StoredSet:
        """The next level of the subject as it is now."""
        level = len(self.sets)
        snar, index, archive = (self.scratch / f"{name}.{level}" for name in ("snar", "index", "tar"))
        if level:
            snar.write_bytes(self.snapshot)
        command = ["tar", *WRITING, f"--listed-incremental={snar}", f"--index-file={index}", f"--file={archive}"]
        done = subprocess.run(
            [*command, *options, f"--directory={self.subject}", *self.names],
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        assert done.returncode in {0, 1}, done.stderr
        self.snapshot = snar.read_bytes()
        made = stored_set(level, archive.read_bytes(), index.read_bytes(), self.snapshot, **self._how)
        self.sets.append(made)
        archive.unlink()
        self._wait_for_the_clock_of_the_disk()
        return made

    def _wait_for_the_clock_of_the_disk(self) -> None:
        """Until a change is seen as later than the backup: the kernel stamps files by ticks of some milliseconds."""
        now = time.time_ns()
        probe = self.scratch / "clock"
        while True:
            probe.write_bytes(b"")
            if probe.stat().st_mtime_ns > now:
                return


def tree_of(root: Path) -> Photograph:
    """All that a restore must bring back of a tree."""
    return photograph(root)


def fill(subject: Path) -> None:
    """One of everything that needs no root."""
    (subject / "d/sub").mkdir(parents=True)
    (subject / "d/f").write_text("hello\n")
    (subject / "d/g").write_bytes(os.urandom(300_000))
    os.link(subject / "d/f", subject / "d/sub/hard")
    (subject / "zone").symlink_to("/etc/localtime")
    (subject / "up").symlink_to("..")
    (subject / "gone").symlink_to("nowhere/at all")
    (subject / "notes..txt").write_text("dots")
    (subject / "...").write_text("more dots")
    (subject / "-rf").write_text("no option")
    (subject / "a -> b").write_text("no link")
    (subject / ("n" * 200)).mkdir()
    (subject / ("n" * 200) / ("m" * 250)).write_text("long")
    os.mkfifo(subject / "pipe")
    with (subject / "holes").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(10 << 20)
        file.write(b"in the middle")
    Path(os.fsdecode(os.fsencode(subject) + b'/\xff\xfe\n\t"\\name')).write_text("bytes")
    (subject / "grüße").write_text("umlauts")
    (subject / "read only").mkdir()
    (subject / "read only/f").write_text("x")
    (subject / "read only").chmod(0o555)
    (subject / "d/sub").chmod(0o1777)
    (subject / "d/g").chmod(0o6711)
    os.setxattr(subject / "d/f", "user.colour", b"blue\0=\n")
    os.utime(subject / "d/f", ns=(0, -1_500_000_001))
    os.utime(subject / "gone", ns=(0, 5), follow_symlinks=False)
    os.utime(subject / "notes..txt", ns=(0, 4_102_444_800_000_000_001))


def member(name: bytes, kind: bytes = b"0", content: bytes = b"", **fields: Any) -> bytes:
    """One member, block by block, exactly as told: `link`, `prefix`, `mode`, `magic`, `size` and `pax` records."""
    pax: Iterable[tuple[bytes, bytes]] = fields.pop("pax", ())
    blocks = b""
    if pax:
        body = b"".join(record(key, value) for key, value in pax)
        blocks = header(b"./PaxHeaders/x", b"x", len(body)) + padded(body)
    size = fields.pop("size", len(content))
    return blocks + header(name, kind, size, **fields) + padded(content)


def directory(name: bytes, dumpdir: bytes | None = b"\0", **fields: Any) -> bytes:
    """A directory of an incremental archive."""
    pax = [] if dumpdir is None else [(b"GNU.dumpdir", dumpdir)]
    return member(name, b"5", mode=0o755, pax=[*pax, *fields.pop("pax", ())], **fields)


def header(
    name: bytes,
    kind: bytes,
    size: int,
    *,
    link: bytes = b"",
    prefix: bytes = b"",
    mode: int = 0o644,
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """A header block with the right checksum, or as right as its fields allow."""
    block = bytearray(512)
    block[0:100] = name.ljust(100, b"\0")[:100]
    block[100:108] = b"%07o\0" % mode
    block[108:124] = b"0000000\x000000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 1_700_000_000
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")[:100]
    block[257:265] = magic
    block[329:345] = b"0000000\x000000000\0"
    block[345:500] = prefix.ljust(155, b"\0")[:155]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header."""
    length = len(key) + len(value) + 3
    while len(b"%d %s=%s\n" % (length, key, value)) != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def padded(content: bytes) -> bytes:
    """Whole blocks."""
    return content + bytes(-len(content) % 512)


def archive_of(*members: bytes) -> bytes:
    """An archive with its end."""
    return b"".join(members) + bytes(1024)
