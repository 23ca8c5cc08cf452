"""Keeps an account of the files that are not in a set as they should be, however many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import orjson

from handlers.contract import MAX_LISTED_PROBLEMS, FileProblem, Part, PartWriter, ProblemKind, SetReader, Sink
from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec
from handlers.tools.frame_reader import decompress_stream
from handlers.tools.framed_part import coded
from handlers.tools.frames import FrameWriter

NAME = "problems.zst"

_FRAME_BYTES = 1 << 18


class ProblemLog:
    """Counts all problems, keeps the first ones, writes all of them as JSON lines into a part of their own.

    There is no such part as long as there is no problem. For one thread at a time.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._part: PartWriter | None = None
        self._writer: FrameWriter | None = None
        self._first: list[FileProblem] = []
        self._counts: Counter[ProblemKind] = Counter()

    @property
    def first(self) -> tuple[FileProblem, ...]:
        """The first MAX_LISTED_PROBLEMS."""
        return tuple(self._first)

    @property
    def counts(self) -> dict[ProblemKind, int]:
        """All of them, by kind."""
        return dict(self._counts)

    def add(self, problem: FileProblem) -> None:
        """One more. Raises what the sink raises."""
        self._counts[problem.kind] += 1
        if len(self._first) < MAX_LISTED_PROBLEMS:
            self._first.append(problem)
        if self._writer is None:
            self._part = self._sink.open_part(NAME)
            self._writer = FrameWriter(self._part, codec=Codec.ZSTD, threads=1, frame_bytes=_FRAME_BYTES)
        record = {"kind": problem.kind, "path": problem.path, "detail": problem.detail}
        self._writer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> Part | None:
        """The finished part, if there was any problem."""
        if self._writer is None or self._part is None:
            return None
        self._writer.close()
        return coded(self._part.close(), Codec.ZSTD)

    def abort(self) -> None:
        """Let go of the threads; harmless after `close`."""
        if self._writer is not None:
            self._writer.abort()


def read(reader: SetReader) -> Iterator[FileProblem]:
    """All problems of a set, in the order in which they were found. Raises IntegrityError for a damaged part."""
    if NAME not in reader.parts:
        return
    rest = b""
    for chunk in decompress_stream(reader.stream(NAME), Codec.ZSTD):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (_problem(line, reader) for line in lines)
    if rest:
        yield _problem(rest, reader)


def _problem(line: bytes, reader: SetReader) -> FileProblem:
    try:
        record = orjson.loads(line)
        return FileProblem(kind=ProblemKind(record["kind"]), path=record["path"], detail=record["detail"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{NAME} of set {reader.backup_id} has a line that tells of no problem") from error
