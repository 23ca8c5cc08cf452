"""What a handler may rely on, together with what is asked of it.

A handler knows how one kind of backup is made and brought back. It knows nothing of queues, journals, stores or
configuration files: it is given a `Job`, writes parts into a `Sink`, and reads them back from `SetReader`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NewType, Protocol

from pydantic import BaseModel

if TYPE_CHECKING:
    from handlers.contents import Contents

BackupId = NewType("BackupId", str)
"""Names one backup set for ever; safe as a file name and as a part of an S3 key."""

PlanName = NewType("PlanName", str)
"""Names a plan of the configuration; safe as a file name and as a part of an S3 key."""

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """How a part is cut into frames, so that a reader can fetch only the ones it needs."""

    count: int
    frame_bytes: int
    """Uncompressed bytes of every frame but the last."""
    table: str
    """Name of the part that lists each frame's place and SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One finished file of a backup set: what was written is fsynced, counted and hashed."""

    name: str
    size_bytes: int
    sha256: str
    """Of the bytes as stored, hexadecimal."""
    codec: str = "none"
    frames: Frames | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A finished directory of a backup set, in which the files lie as they are, beside the parts."""

    name: str
    files: int
    """Names below it, directories included."""
    size_bytes: int
    """Of the regular files in it, each hard-linked one once."""
    listing: str
    """Name of the part that lists all that is in it, see `handlers.tools.trees.listing`."""


class PartWriter(Protocol):
    """One part being written."""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Append the whole chunk; the caller may reuse its buffer as soon as this returns.

        Raises TemporaryError when the store is full or away.
        """

    def close(self) -> Part:
        """Make the part durable; on return its bytes survive a power cut (as part of an uncommitted set)."""


class Sink(Protocol):
    """Where a handler puts the parts of one set. Nothing in it is visible to a reader before the commit."""

    def open_part(self, name: str) -> PartWriter:
        """A writer for a new part; each name is used once in a set. Several parts may be open at once."""

    def open_tree(self, name: str) -> Path:
        """A new, empty directory of the set, for the caller to fill; what is in it becomes durable with the commit.

        Names are shared with the parts. Raises PermanentError where the store holds single files only.
        """

    def leftover(self, name: str) -> Path | None:
        """What an earlier attempt for the plan left in a tree of this name when it failed or died; None if nothing.

        The caller may move out of it, or link to, whatever it finds good: nothing is known of it. It is on the file
        system of `open_tree`'s directories, and goes away with the commit, or the end of this attempt.
        """


class SetReader(Protocol):
    """One committed backup set, as a handler reads it."""

    @property
    def backup_id(self) -> BackupId:
        """Which set this is."""

    @property
    def level(self) -> int:
        """Its level; 0 stands on its own."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts by name, as the manifest has them."""

    @property
    def trees(self) -> Mapping[str, Tree]:
        """The trees by name, as the manifest has them."""

    def tree(self, name: str) -> Path:
        """The directory of a tree, to be read only. Not checked. Raises IntegrityError where it is missing."""

    def stream(self, name: str) -> Iterator[bytes]:
        """The whole part, in order, as stored.

        Raises IntegrityError at the end at the latest if its bytes are not the ones the manifest tells of.
        """

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly these stored bytes of the part; shorter only at its end. Not checked: the frame table is for that."""


class ProblemKind(StrEnum):
    """What can be wrong with one file of the subject."""

    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    CHANGED = "changed"
    SOCKET = "socket"
    UNKNOWN_TYPE = "unknown_type"
    RENAMED = "renamed"
    IGNORED = "ignored"
    """Missing, and the plan says that it may be."""
    OTHER = "other"

    @property
    def is_loss(self) -> bool:
        """Whether content that the plan asked for is missing from the set, which makes the outcome `partial`."""
        return self in {ProblemKind.UNREADABLE, ProblemKind.OTHER}

    @property
    def is_tried_again(self) -> bool:
        """Whether the next level takes the file again, whatever its times say."""
        return self not in {ProblemKind.SOCKET, ProblemKind.UNKNOWN_TYPE, ProblemKind.RENAMED}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblem:
    """One file of the subject that is not in the set as it should be."""

    kind: ProblemKind
    path: str
    """As `printable` gives it."""
    detail: str


MAX_LISTED_PROBLEMS = 1000
"""Problems listed by name in a manifest; all of them are counted, and all are in the part `problems.zst`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running backup has come."""

    files: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Control(Protocol):
    """The thread of life between a running handler and the worker."""

    def checkpoint(self) -> None:
        """Call at least once a second while working. Raises Cancelled when the work is to stop."""

    def report(self, progress: Progress) -> None:
        """Say how far the work is; cheap enough for every frame."""

    def started(self) -> None:
        """Say once that the subject is now being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One backup to make: everything a handler may know of the request and the plan."""

    plan: PlanName
    backup_id: BackupId
    options: BaseModel
    """An instance of the handler's own `Options`."""
    level: int
    parent: SetReader | None
    """The set this level builds on; None exactly when the level is 0. It may be partial: what it could not read has to
    be tried again."""
    scratch: Path
    """An empty directory of this job alone; removed afterwards, whatever happens."""
    control: Control
    full_asked: bool = False
    """Whether the request itself asked for a full backup."""
    bandwidth_bytes_per_second: int | None = None
    """How fast a tree may be written at most; parts are slowed down by the sink itself."""
    last_try: bool = True
    """Whether nobody tries again should this attempt end in a TemporaryError: half a backup may be better than none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What a handler wrote into the sink."""

    parts: tuple[Part, ...]
    files: int
    """Members of the set, directories included."""
    bytes_in: int
    """Bytes read from the subject, before compression."""
    problems: tuple[FileProblem, ...] = ()
    """The first MAX_LISTED_PROBLEMS."""
    problem_counts: Mapping[ProblemKind, int] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the programs that made the set, for instance {"tar": "1.34"}."""
    excluded: tuple[str, ...] = ()
    """The patterns that kept files out."""
    trees: tuple[Tree, ...] = ()
    """What was written into directories of the set; the listing of each is among the parts."""
    empty: bool = False
    """Whether the subject has nothing in it, as if something were not mounted."""


class Prepared(Protocol):
    """A backup that was looked at and planned; nothing has been written or changed yet."""

    def describe(self) -> Mapping[str, JSON]:
        """What would be done, for a dry run."""

    def produce(self, sink: Sink) -> Produced:
        """Act. Every part is closed on return.

        Raises TemporaryError, PermanentError or Cancelled; what was written then is thrown away by the caller.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore brought back."""

    files: int
    """Members that were applied; more than one for what changed between levels."""
    bytes_out: int
    bytes_read: int
    """Bytes read from the store."""
    warnings: tuple[str, ...] = ()
    """A sentence on each kind of thing that could not be brought back as it was; empty when everything was."""
    notes: tuple[str, ...] = ()
    """A sentence on what is as an older set has it, because a newer one could not read it. Only of single paths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where a restored tree is not what the set's index says."""

    path: str
    what: str


class Handler(Protocol):
    """One kind of backup. Made once at start without arguments; has no state."""

    name: ClassVar[str]
    Options: ClassVar[type[BaseModel]]
    """The plan's `options`: a frozen pydantic model that forbids unknown keys and describes each field."""

    def max_level(self, options: BaseModel) -> int | None:
        """The highest level this handler can make with these options; None where there is no limit."""

    def subject(self, options: BaseModel) -> str:
        """What is backed up, in words for events and logs, for instance the directory."""

    def scope(self, options: BaseModel) -> str:
        """All in the options that decides what is in a set; a level is only built on a set of the same scope.

        What an earlier level left out by another rule would not be looked at again.
        """

    def check(self, options: BaseModel) -> Sequence[str]:
        """What would keep a backup from working right now, one sentence each; empty when all is well. Reads only."""

    def prepare(self, job: Job) -> Prepared:
        """Look (reads only), then decide. Raises PermanentError where the subject cannot be backed up."""

    def restore_guide(self, manifest_chain: Sequence[Mapping[str, JSON]]) -> str:
        """The exact commands that restore this very chain without Holdfast, as Markdown.

        The chain is the sets' manifests as JSON, oldest first; each set's directory is a sibling of this one.
        """

    def restore(self, chain: Sequence[SetReader], target: Path, paths: Sequence[bytes], control: Control) -> Restored:
        """Bring back the state of the last set of the chain, or only `paths` of it, below target.

        Target exists and is empty. Raises IntegrityError, or PermanentError naming a path that is not in the set;
        the caller then removes what is below target.
        """

    def compare(self, chain: Sequence[SetReader], restored: Path, control: Control) -> Iterator[Difference]:
        """Where a tree restored from this chain differs from what the last set's index lists."""

    def contents(self, chain: Sequence[SetReader], checkpoint: Callable[[], None]) -> Contents:
        """The state of the last set of the chain, to look into; calls `checkpoint` now and then. Reads nothing yet."""


def printable(path: bytes) -> str:
    """A name as text, reversible by `unprintable`.

    UTF-8 where it is printable, `\\xNN` for any other byte, `\\\\` for a backslash.
    """
    text = path.decode("utf-8", "surrogateescape")
    return "".join(_printable_character(character) for character in text)


def _printable_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def unprintable(text: str) -> bytes:
    """The name that `printable` gave as text. Raises ValueError where a backslash starts nothing known."""
    out = bytearray()
    rest = iter(range(len(text)))
    for at in rest:
        if text[at] != "\\":
            out += text[at].encode("utf-8", "surrogateescape")
        elif text[at + 1 : at + 2] == "\\":
            out += b"\\"
            next(rest)
        elif text[at + 1 : at + 2] == "x" and len(text) >= at + 4:
            out.append(int(text[at + 2 : at + 4], 16))
            for _ in range(3):
                next(rest)
        else:
            raise ValueError(f"not an escaped name: {text!r}")
    return bytes(out)
