"""Makes a full backup with our own archiver, where there is no GNU tar or the plan does not want it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from handlers.contract import JSON, FileProblem, Job, Part, ProblemKind, Produced, Sink
from handlers.errors import PermanentError
from handlers.tools.frames import FrameStats, FrameWriter
from handlers.tools.problem_log import ProblemLog
from handlers.tools.tar.engine import Internal
from handlers.tools.tar.internal import Walking, member_name, write_archive
from handlers.tools.tar.options import TarOptions

_CHECKPOINT_SECONDS = 0.1


class OpenArchive(Protocol):
    """The parts of a set on their way into the sink."""

    data: FrameWriter
    index: FrameWriter
    files: int
    stats: FrameStats
    """Known once it is closed."""

    def list(self, piece: memoryview) -> None:
        """Whole lines of the listing."""

    def checkpoint(self) -> None:
        """Raises Cancelled when the work is to stop."""

    def close(self) -> tuple[Part, ...]:
        """The finished parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFull:
    """One full backup, planned."""

    job: Job
    options: TarOptions
    engine: Internal
    parts: Sequence[str]
    open_archive: Callable[[Sink], OpenArchive]
    is_empty: Callable[[], bool]

    def describe(self) -> Mapping[str, JSON]:
        """What will be done, and why GNU tar has no part in it."""
        return {
            "engine": str(self.engine),
            "level": 0,
            "parent": None,
            "names": [member_name(name).decode("utf-8", "surrogateescape") for name in self.options.include],
            "parts": list(self.parts),
        }

    def produce(self, sink: Sink) -> Produced:
        """Read the subject, see `Prepared.produce`."""
        options = self.options
        with ExitStack() as stack:
            problems = _Problems(ProblemLog(sink), options)
            stack.callback(problems.log.abort)
            archive = self.open_archive(sink)
            stack.enter_context(archive.data)
            stack.enter_context(archive.index)
            self.job.control.started()
            write_archive(
                Walking(
                    root=options.root,
                    names=options.include,
                    exclude=options.exclude,
                    one_file_system=options.one_file_system,
                    xattrs=options.xattrs,
                    acls=options.acls,
                    sparse=options.sparse,
                ),
                _Output(archive),
                problems.add,
            )
            parts = archive.close()
            listed = problems.log.close()
        if not archive.files:
            raise PermanentError(
                f"nothing to back up in {options.root}", hint="look at include and exclude of the plan"
            )
        return Produced(
            parts=(*parts, *([listed] if listed else [])),
            files=archive.files,
            bytes_in=archive.stats.bytes_in,
            problems=problems.log.first,
            problem_counts=problems.log.counts,
            tools={"tar": str(self.engine)},
            excluded=options.exclude,
            empty=self.is_empty(),
        )


class _Problems:
    def __init__(self, log: ProblemLog, options: TarOptions) -> None:
        self.log = log
        self._wanted = {member_name(name) for name in options.include}

    def add(self, problem: FileProblem, name: bytes) -> None:
        kind = problem.kind
        # What the plan names has to be there; what was merely found may go away again.
        if kind is ProblemKind.VANISHED and name in self._wanted:
            kind = ProblemKind.UNREADABLE
        self.log.add(FileProblem(kind=kind, path=problem.path, detail=problem.detail))


class _Output:
    """Hands everything on, and asks ten times a second at most whether to go on."""

    def __init__(self, archive: OpenArchive) -> None:
        self._archive = archive
        self._asked = 0.0

    def archive(self, chunk: bytes | bytearray | memoryview) -> None:
        self._archive.data.write(chunk, checkpoint=self._archive.checkpoint)

    def listing(self, lines: bytes) -> None:
        self._archive.list(memoryview(lines))

    def checkpoint(self) -> None:
        now = time.monotonic()
        if now - self._asked >= _CHECKPOINT_SECONDS:
            self._asked = now
            self._archive.checkpoint()
