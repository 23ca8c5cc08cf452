"""Levels made by the tar handler, stored as files the way a local store does."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from handlers.contract import JSON, BackupId, Job, Part, PlanName, Produced, Progress
from handlers.tar_level import TarHandler
from handlers.tools.checksum import checked


class Recorder:
    """A control that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reports: list[Progress] = []
        self.checkpoints: list[float] = []

    def checkpoint(self) -> None:
        """Remember when."""
        self.checkpoints.append(time.monotonic())

    def report(self, progress: Progress) -> None:
        """Remember."""
        self.reports.append(progress)

    def started(self) -> None:
        """Remember."""
        self.calls.append("started")


class _PartFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        self._digest.update(chunk)
        return self._file.write(chunk)

    def close(self) -> Part:
        size = self._file.tell()
        self._file.close()
        return Part(name=self._path.name, size_bytes=size, sha256=self._digest.hexdigest())


class DirectorySink:
    """Parts as files of a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.open: list[_PartFile] = []

    def open_part(self, name: str) -> _PartFile:
        """A new file."""
        self.open.append(_PartFile(self.directory / name))
        return self.open[-1]

    def abandon(self) -> None:
        """Close what a failed handler left open, as a store does when it throws a set away."""
        for part in self.open:
            part._file.close()


class DirectorySet:
    """A set read back from its directory."""

    def __init__(self, directory: Path, level: int, parts: Mapping[str, Part]) -> None:
        self.directory = directory
        self.backup_id = BackupId(directory.name)
        self.level = level
        self.parts = parts

    def stream(self, name: str) -> Iterator[bytes]:
        """The file, checked."""
        part = self.parts[name]
        content = (self.directory / name).read_bytes()
        return checked(iter([content]), size_bytes=part.size_bytes, sha256=part.sha256, name=name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """The bytes as stored."""
        with (self.directory / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)


class Plan:
    """One subject with the chain of its levels below a directory; `back_up` makes the next one."""

    def __init__(self, place: Path, subject: Path, **options: Any) -> None:
        self.place = place
        self.subject = subject
        self.options: dict[str, Any] = options
        self.control: Any = Recorder()
        self.sets: list[DirectorySet] = []
        self.manifests: list[Mapping[str, JSON]] = []
        self.handler = TarHandler()
        self._scratches = 0

    def job(self, level: int | None = None, **options: Any) -> Job:
        """The job for the next level."""
        level = len(self.sets) if level is None else level
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.place))
        return Job(
            plan=PlanName("plan"),
            backup_id=self._unused(level),
            options=TarHandler.Options(**{"root": self.subject, **self.options, **options}),
            level=level,
            parent=self.sets[level - 1] if level else None,
            scratch=scratch,
            control=self.control,
        )

    def back_up(self, level: int | None = None, **options: Any) -> Produced:
        """Make the next level, or a lower one that takes the place of those from it on; commit it when it is good."""
        job = self.job(level, **options)
        prepared = self.handler.prepare(job)
        sink = DirectorySink(self.place / job.backup_id)
        try:
            produced = prepared.produce(sink)
        except BaseException:
            sink.abandon()
            raise
        parts = {part.name: part for part in produced.parts}
        assert sorted(parts) == sorted(path.name for path in sink.directory.iterdir())
        self.sets[job.level :] = [DirectorySet(sink.directory, job.level, parts)]
        self._commit(job, produced)
        self._wait_for_the_clock_of_the_disk()
        return produced

    def _unused(self, level: int) -> BackupId:
        names = (f"set-{level}" + (f".{number}" if number else "") for number in count())
        return BackupId(next(name for name in names if not (self.place / name).exists()))

    def _commit(self, job: Job, produced: Produced) -> None:
        directory = self.place / job.backup_id
        parts: list[JSON] = [
            {
                "name": part.name,
                "bytes": part.size_bytes,
                "sha256": part.sha256,
                "codec": part.codec,
                "frames": part.frames and {"count": part.frames.count, "frame_bytes": part.frames.frame_bytes},
            }
            for part in produced.parts
        ]
        self.manifests[job.level :] = [{"backup_id": job.backup_id, "level": job.level, "parts": parts}]
        (directory / "manifest.json").write_bytes(orjson.dumps(self.manifests[-1]))
        sums = "".join(f"{part.sha256}  {part.name}\n" for part in produced.parts)
        (directory / "SHA256SUMS").write_text(sums)
        (directory / "RESTORE.md").write_text(self.handler.restore_guide(self.manifests))

    def _wait_for_the_clock_of_the_disk(self) -> None:
        """Until a change is seen as later than the backup: the kernel stamps files by ticks of some milliseconds."""
        now = time.time_ns()
        probe = self.place / "clock"
        while True:
            probe.write_bytes(b"")
            if probe.stat().st_mtime_ns > now:
                return


def unpacked(plan: Plan) -> Path:
    """The chain restored by hand."""
    target = plan.place / f"restored-{len(plan.sets)}"
    target.mkdir()
    for made in plan.sets:
        (data,) = made.directory.glob("data.tar*")
        subprocess.run(
            [
                *("tar", "--extract", f"--file={data}", f"--directory={target}", "--listed-incremental=/dev/null"),
                *("--numeric-owner", "--preserve-permissions", "--acls", "--xattrs", "--xattrs-include=*"),
            ],
            check=True,
        )
    return target


def text_of(plan: Plan, name: str) -> bytes:
    """A part of the last set, decompressed by the plain tool."""
    return subprocess.run(["zstd", "-dc", plan.sets[-1].directory / name], check=True, capture_output=True).stdout


def listed(plan: Plan) -> list[str]:
    """The names in the last set as the plain tool lists them, directories left out."""
    (data,) = plan.sets[-1].directory.glob("data.tar*")
    done = subprocess.run(
        ["tar", "--list", f"--file={data}", "--quoting-style=c"], check=True, capture_output=True, text=True
    )
    return sorted(name.strip('"').removeprefix("./") for name in done.stdout.splitlines() if not name.endswith('/"'))
