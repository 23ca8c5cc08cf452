"""Backs up a directory as a chain of GNU tar archives, each holding what changed since the level before."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from handlers.contents import Contents
from handlers.contract import (
    JSON,
    Control,
    Difference,
    Frames,
    Job,
    Part,
    PartWriter,
    Produced,
    Progress,
    Restored,
    SetReader,
    Sink,
)
from handlers.errors import HoldfastError, PermanentError
from handlers.tools.codecs import Codec
from handlers.tools.frame_table import Frame
from handlers.tools.framed_part import coded, write_part
from handlers.tools.frames import FRAME_BYTES, FrameStats, FrameWriter
from handlers.tools.problem_log import ProblemLog
from handlers.tools.process import PIPE, Program, disk_error
from handlers.tools.restore_guide import guide
from handlers.tools.tar import program as tar
from handlers.tools.tar import reach as tar_reach
from handlers.tools.tar import snapshot as tar_snapshot
from handlers.tools.tar.ahead import ReadAhead
from handlers.tools.tar.engine import Gnu, engine, is_internal, require_level
from handlers.tools.tar.listener import Directories, Listener
from handlers.tools.tar.options import TarOptions
from handlers.tools.tar.renamed import Displaced
from handlers.tools.tar.stored_set import TarSet

if TYPE_CHECKING:
    from handlers.tools.tar.full import PreparedFull

DATA = "data.tar"
TABLE = "data.frames"
INDEX = "index.zst"
SNAPSHOT = "tree.snar.zst"

_INDEX_FRAME_BYTES = 1 << 20
_REPORT_SECONDS = 0.1


class TarHandler:
    """The handler `tar`."""

    name: ClassVar[str] = "tar"
    Options: ClassVar[type[BaseModel]] = TarOptions

    def max_level(self, options: BaseModel) -> int | None:
        """Any number of levels; only level 0 without GNU tar."""
        return 0 if is_internal(_tar_options(options).engine) else None

    def subject(self, options: BaseModel) -> str:
        """The directory."""
        return str(_tar_options(options).root)

    def scope(self, options: BaseModel) -> str:
        """Everything but how the archive is compressed; and the engine, where it is the one without levels."""
        chosen = _tar_options(options)
        scope = chosen.model_dump_json(exclude={"codec", "strength", "threads", "sparse", "engine", "read_ahead"})
        return f"{scope} internal" if is_internal(chosen.engine) else scope

    def check(self, options: BaseModel) -> Sequence[str]:
        """Whether GNU tar is there if it is needed, and the subject can be read."""
        problems = []
        chosen = _tar_options(options)
        for look in (lambda: engine(chosen.engine), lambda: _require_subject(chosen)):
            try:
                look()
            except HoldfastError as error:
                problems.append(error.message)
        return problems

    def prepare(self, job: Job) -> PreparedTar | PreparedFull:
        """Raises PermanentError unless root is a directory that can be read and there is an engine for this level."""
        options = _tar_options(job.options)
        found = engine(options.engine)
        require_level(found, job.level)
        _require_subject(options)
        if isinstance(found, Gnu):
            return PreparedTar(job, options, found.version)
        from handlers.tools.tar.full import PreparedFull

        return PreparedFull(
            job=job,
            options=options,
            engine=found,
            parts=(DATA + options.codec.suffix, TABLE, INDEX),
            open_archive=lambda sink: _Archive(sink, options, job.control),
            is_empty=lambda: _is_empty(options),
        )

    def restore_guide(self, manifest_chain: Sequence[Mapping[str, JSON]]) -> str:
        """The commands for this chain, with coreutils, GNU tar and the codec's own program."""
        return guide(manifest_chain)

    def restore(self, chain: Sequence[SetReader], target: Path, paths: Sequence[bytes], control: Control) -> Restored:
        """All levels, oldest first; or only the frames that hold `paths`."""
        from handlers.tools.tar import restore as tar_restore

        if paths:
            return tar_restore.restore_paths(chain, target, paths, control)
        return tar_restore.restore_chain(chain, target, control)

    def compare(self, chain: Sequence[SetReader], restored: Path, control: Control) -> Iterator[Difference]:
        """What differs from GNU tar's own listing."""
        from handlers.tools.tar import restore as tar_restore

        return tar_restore.compare(chain, restored, control)

    def contents(self, chain: Sequence[SetReader], checkpoint: Callable[[], None]) -> Contents:
        """By the indexes, the directories' lists, and single frames."""
        from handlers.tools.tar.tree import TarTree

        return TarTree([TarSet(reader) for reader in chain], checkpoint)


def _tar_options(options: BaseModel) -> TarOptions:
    assert isinstance(options, TarOptions)
    return options


def _require_subject(options: TarOptions) -> None:
    """An unmounted or mistyped subject must not become an empty backup."""
    root = options.root
    try:
        with os.scandir(root):
            pass
    except OSError as error:
        raise PermanentError(f"cannot read the subject {root}: {error.strerror}") from error
    if not any(os.path.lexists(root / name) for name in options.include):
        raise PermanentError(f"nothing to back up: {root} has none of {', '.join(options.include)}")


def _is_empty(options: TarOptions) -> bool:
    """Whether there is nothing in the places that the plan names: a mount point without its disk, for instance."""
    places = [options.root / name for name in options.include]
    try:
        return not any(
            path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir())) for path in places
        )
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class PreparedTar:
    """One level, planned."""

    job: Job
    options: TarOptions
    version: str

    def describe(self) -> Mapping[str, JSON]:
        """The command and what will come of it."""
        parent = self.job.parent
        return {
            "command": self._archiving("/dev/fd/N").argv(),
            "level": self.job.level,
            "parent": None if parent is None else str(parent.backup_id),
            "names": [_member_name(name) for name in self.options.include],
            "parts": [DATA + self.options.codec.suffix, TABLE, INDEX, SNAPSHOT],
        }

    def produce(self, sink: Sink) -> Produced:
        """Let GNU tar read the subject, see `Prepared.produce`."""
        control, root = self.job.control, self.options.root
        archiving = self._archiving("")
        wanted = [os.fsencode(_member_name(name)) for name in self.options.include]
        displaced = Displaced()
        if self.job.parent is not None:
            displaced = tar_snapshot.bring(self.job.parent, archiving.snapshot, root, wanted, control.checkpoint)
        try:
            archiving.names.write_bytes(b"".join(name + b"\0" for name in wanted))
        except OSError as error:
            raise disk_error(error, f"cannot write {archiving.names}") from error
        with ExitStack() as stack:
            listener = Listener(ProblemLog(sink), wanted, root)
            stack.callback(listener.log.abort)
            archive = _Archive(sink, self.options, control)
            stack.enter_context(archive.data)
            stack.enter_context(archive.index)
            self._run(archive, listener)
            parts = archive.close()
            tar_snapshot.look_over(archiving.snapshot, archive.directories, displaced, control.checkpoint)
            for problem in displaced.problems():
                listener.log.add(problem)
            problems = listener.log.close()
        if self.job.level == 0 and not archive.files:
            raise PermanentError(
                f"nothing to back up in {self.options.root}", hint="look at include and exclude of the plan"
            )
        snapshot = write_part(
            sink, SNAPSHOT, tar_snapshot.read(archiving.snapshot, listener.lost), checkpoint=control.checkpoint
        )
        return Produced(
            parts=(*parts, snapshot, *([problems] if problems else [])),
            files=archive.files,
            bytes_in=archive.stats.bytes_in,
            problems=listener.log.first,
            problem_counts=listener.log.counts,
            tools={"tar": self.version},
            excluded=self.options.exclude,
            empty=_is_empty(self.options),
        )

    def _run(self, archive: _Archive, listener: Listener) -> None:
        """Return when the archive is in the data part and worth keeping."""
        with ExitStack() as stack:
            listing, listing_in = os.pipe()
            stack.callback(os.close, listing)
            argv = self._archiving(f"/dev/fd/{listing_in}").argv()
            program = Program(
                tar_reach.within(argv, self.options.root, self.options.include, self.job.scratch),
                stdout=PIPE,
                pass_fds=(listing_in,),
                checkpoint=archive.checkpoint,
                on_error_line=listener.hear,
            )
            try:
                stack.enter_context(program)
            finally:
                os.close(listing_in)
            stack.enter_context(archive.ahead)
            self.job.control.started()
            program.drain(listing, archive.list)
            archive.data.pump(program.stdout, on_piece=archive.ahead.took, checkpoint=program.checkpoint)
            ended = program.wait()
        tar.require_archive(
            ended, fatal=listener.fatal, unknown=listener.unknown, problems=sum(listener.log.counts.values())
        )

    def _archiving(self, index: str) -> tar.Archiving:
        options = self.options
        return tar.Archiving(
            root=options.root,
            snapshot=self.job.scratch / "tree.snar",
            index=index,
            names=self.job.scratch / "names",
            exclude=options.exclude,
            one_file_system=options.one_file_system,
            xattrs=options.xattrs,
            acls=options.acls,
            sparse=options.sparse,
        )


def _member_name(name: str) -> str:
    return "." if name == "." else f"./{name}"


class _Archive:
    """The archive and its listing on their way into the sink."""

    def __init__(self, sink: Sink, options: TarOptions, control: Control) -> None:
        self._control = control
        self._codec = options.codec
        self._parts = [sink.open_part(name) for name in (DATA + options.codec.suffix, TABLE, INDEX)]
        data_out, table_out, index_out = self._parts
        self.files = 0
        self.directories = Directories()
        self.ahead = ReadAhead(
            options.root,
            [os.fsencode(_member_name(name)) for name in options.include],
            exclude=options.exclude,
            wanted=options.read_ahead,
        )
        self._bytes_in = 0
        self._bytes_out = 0
        self._reported = 0.0
        self.data = FrameWriter(
            data_out,
            codec=options.codec,
            strength=options.strength,
            threads=options.threads,
            table_out=table_out,
            on_frame=self._on_frame,
        )
        self.index = FrameWriter(index_out, codec=Codec.ZSTD, threads=1, frame_bytes=_INDEX_FRAME_BYTES)
        self.stats = FrameStats(frames=0, bytes_in=0, bytes_out=0)

    def list(self, piece: memoryview) -> None:
        """A piece of the listing: one line per member, newlines in names are quoted."""
        lines = bytes(piece)
        self.files += lines.count(b"\n")
        self.directories.read(lines)
        self.index.write(piece)
        self.ahead.listed(self.files, lines)

    def _on_frame(self, frame: Frame) -> None:
        self._bytes_in += frame.size_bytes
        self._bytes_out += frame.length

    def checkpoint(self) -> None:
        """Let the worker know how far we are, and ourselves whether to go on."""
        self._control.checkpoint()
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._control.report(Progress(files=self.files, bytes_in=self._bytes_in, bytes_out=self._bytes_out))

    def close(self) -> tuple[Part, ...]:
        """The finished parts."""
        self.stats = self.data.close(checkpoint=self.checkpoint)
        self.index.close()
        frames = Frames(count=self.stats.frames, frame_bytes=FRAME_BYTES, table=TABLE)
        self._control.report(Progress(files=self.files, bytes_in=self.stats.bytes_in, bytes_out=self.stats.bytes_out))
        data, table, index = (_closed(part, self._control) for part in self._parts)
        return coded(data, self._codec, frames), table, coded(index, Codec.ZSTD)


def _closed(part: PartWriter, control: Control) -> Part:
    control.checkpoint()
    return part.close()
