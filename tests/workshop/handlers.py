"""A handler that is real, and small enough to see through: its subject is a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from handlers.abilities import Managed
from handlers.contract import (
    JSON,
    Control,
    Difference,
    FileProblem,
    Job,
    ProblemKind,
    Produced,
    Progress,
    Restored,
    SetReader,
    Sink,
)


class TextOptions(BaseModel):
    """The text that is backed up, with what goes wrong on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = "hello"
    unreadable: bool = False
    files: int = 1
    scope: str = "all"


class PreparedText:
    """A backup of a text."""

    def __init__(self, job: Job, during: Callable[[Job], None]) -> None:
        self._job = job
        self._during = during

    def describe(self) -> Mapping[str, JSON]:
        """What would be done."""
        return {"level": self._job.level}

    def produce(self, sink: Sink) -> Produced:
        """One part with the parent's text and the new one."""
        job = self._job
        assert isinstance(job.options, TextOptions)
        job.control.started()
        before = b"".join(job.parent.stream("text")) if job.parent else b""
        writer = sink.open_part("text")
        writer.write(before + job.options.text.encode())
        job.control.report(Progress(files=1, bytes_in=len(job.options.text)))
        self._during(job)
        job.control.checkpoint()
        part = writer.close()
        problems: tuple[FileProblem, ...] = ()
        if job.options.unreadable:
            problems = (FileProblem(kind=ProblemKind.UNREADABLE, path="secret", detail="permission denied"),)
        return Produced(
            parts=(part,),
            files=job.options.files,
            bytes_in=len(job.options.text),
            problems=problems,
            problem_counts={ProblemKind.UNREADABLE: 1} if problems else {},
            empty=not job.options.files,
        )


class TextHandler:
    """Backs up a text; `during` is called while it works, and may raise."""

    name: ClassVar[str] = "text"
    Options: ClassVar[type[BaseModel]] = TextOptions

    def __init__(self, during: Callable[[Job], None] = lambda job: None) -> None:
        self.during = during
        self.jobs: list[Job] = []

    def max_level(self, options: BaseModel) -> int | None:
        """No limit."""
        return None

    def subject(self, options: BaseModel) -> str:
        """Always the same."""
        return "a text"

    def scope(self, options: BaseModel) -> str:
        """What is left out."""
        assert isinstance(options, TextOptions)
        return options.scope

    def check(self, options: BaseModel) -> Sequence[str]:
        """All is well."""
        return ()

    def prepare(self, job: Job) -> PreparedText:
        """Nothing to look at."""
        self.jobs.append(job)
        return PreparedText(job, self.during)

    def restore_guide(self, manifest_chain: Sequence[Mapping[str, JSON]]) -> str:
        """Short."""
        return f"cat text  # {len(manifest_chain)} levels\n"

    def restore(self, chain: Sequence[SetReader], target: Path, paths: Sequence[bytes], control: Control) -> Restored:
        """The last text."""
        text = b"".join(chain[-1].stream("text"))
        (target / "text").write_bytes(text)
        return Restored(files=1, bytes_out=len(text), bytes_read=len(text))

    def compare(self, chain: Sequence[SetReader], restored: Path, control: Control) -> Iterator[Difference]:
        """Byte by byte."""
        if (restored / "text").read_bytes() != b"".join(chain[-1].stream("text")):
            yield Difference(path="text", what="other content")


class PoolHandler(TextHandler):
    """A text that peers wait for: it tells them, and they do what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.untold: tuple[str, ...] = ()
        self.asked: list[tuple[str, bool]] = []
        self.exit_codes: dict[str, int | None] = {"north": 0, "south": 0}
        self.during_acknowledge: Callable[[], None] = lambda: None

    def acknowledge(self, options: BaseModel, made: SetReader, control: Control) -> Sequence[str]:
        """Remember which set was told of."""
        self.during_acknowledge()
        control.checkpoint()
        self.told.append(made.backup_id)
        return self.untold

    def actions(self, options: BaseModel) -> Sequence[str]:
        """One."""
        return ("collect",)

    def manage(self, options: BaseModel, action: str, *, full: bool, control: Control) -> Sequence[Managed]:
        """Each peer ends as the test wants."""
        control.checkpoint()
        self.asked.append((action, full))
        return [
            Managed(peer=peer, exit_code=code, output=f"{peer} was here", error="unreachable" if code is None else None)
            for peer, code in self.exit_codes.items()
        ]
