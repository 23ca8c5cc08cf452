"""The manifest: the one small file that makes a backup set exist.

Pure. Field by field in `docs/formats.md`; `holdfast schema manifest` prints the JSON Schema.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from handlers.contract import BackupId, Frames, Part, PlanName, Tree
from handlers.errors import IntegrityError

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
GUIDE = "RESTORE.md"
EMPTY = "the subject is empty"
"""How the warning on a set begins that has nothing in it."""


def _in_every_zone(moment: datetime) -> datetime:
    # The first and the last day of the calendar are beyond it in some time zone, and every look at them would fail.
    if not 1 < moment.year < 9999:
        raise ValueError(f"{moment.isoformat()} is no date")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_every_zone)]
"""When something happened, as a store has it: a moment that can be told in any time zone."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameRecord(_Record):
    """How a part is cut into frames."""

    count: int = Field(ge=0)
    """Number of frames."""
    frame_bytes: int = Field(gt=0)
    """Uncompressed bytes of every frame but the last."""
    table: str
    """Name of the part that lists the frames."""


class PartRecord(_Record):
    """One file of the set."""

    name: str
    """File name inside the set."""
    bytes: int = Field(ge=0)
    """Size as stored."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the bytes as stored."""
    codec: str = "none"
    """How the part is compressed: none, zstd, gzip, bzip2 or xz."""
    frames: FrameRecord | None = None
    """Present where single frames can be fetched."""

    @classmethod
    def of(cls, part: Part) -> PartRecord:
        """The record of a part that was written."""
        frames = part.frames and FrameRecord(
            count=part.frames.count, frame_bytes=part.frames.frame_bytes, table=part.frames.table
        )
        return cls(name=part.name, bytes=part.size_bytes, sha256=part.sha256, codec=part.codec, frames=frames or None)

    def part(self) -> Part:
        """The part as handlers know it."""
        frames = self.frames and Frames(
            count=self.frames.count, frame_bytes=self.frames.frame_bytes, table=self.frames.table
        )
        return Part(name=self.name, size_bytes=self.bytes, sha256=self.sha256, codec=self.codec, frames=frames or None)


class TreeRecord(_Record):
    """One directory of the set in which files lie as they are."""

    name: str
    """Its name inside the set."""
    files: int = Field(ge=0)
    """Names below it, directories included."""
    bytes: int = Field(ge=0)
    """Of the regular files in it, each hard-linked one once."""
    listing: str
    """Name of the part that lists all that is in it, with sizes and SHA-256."""

    @classmethod
    def of(cls, tree: Tree) -> TreeRecord:
        """The record of a tree that was written."""
        return cls(name=tree.name, files=tree.files, bytes=tree.size_bytes, listing=tree.listing)

    def tree(self) -> Tree:
        """The tree as handlers know it."""
        return Tree(name=self.name, files=self.files, size_bytes=self.bytes, listing=self.listing)


class ProblemRecord(_Record):
    """One file that is not in the set as it should be."""

    kind: str
    """unreadable, vanished, changed, socket, unknown_type, renamed, ignored or other."""
    path: str
    """The name; `\\xNN` stands for a byte that is no printable UTF-8, `\\\\` for a backslash."""
    detail: str
    """What the system said."""


class Counts(_Record):
    """How much there is."""

    files: int
    """Members, directories included."""
    bytes_in: int
    """Bytes read from the subject."""
    bytes_out: int
    """Bytes stored, all parts and trees together."""


class Manifest(_Record):
    """Everything there is to know about one backup set."""

    format: Literal[1] = FORMAT
    """Version of this format; every version ever released stays readable."""
    backup_id: str
    """Names the set; fixed by the request."""
    request_id: str
    """The producer's id of the request that asked for it."""
    request_digest: str = Field(pattern="^[0-9a-f]{64}$")
    """Tells another request that wrongly uses the same id from this one."""
    plan: str
    """The plan that was run."""
    handler: str
    """The kind of backup."""
    subject: str
    """What was backed up."""
    scope: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the options that decide what is in a set; levels only build on sets of the same scope."""
    level: int = Field(ge=0)
    """0 stands on its own; level n needs its parent."""
    parent: str | None = None
    """backup_id of the set this one builds on."""
    level_reason: str
    """Why this level was chosen."""
    restarts: int = Field(default=0, ge=0)
    """How often the plan has begun its levels again since level 0 of the chain."""
    host: str
    """The node that made it."""
    started: Moment
    """When the subject began to be read."""
    finished: Moment
    """When the last part was written."""
    outcome: Literal["succeeded", "partial"]
    """`partial`: some content that the plan asked for could not be read; see `problems`."""
    counts: Counts
    """Sizes."""
    parts: tuple[PartRecord, ...]
    """The files of the set, other than this one."""
    trees: tuple[TreeRecord, ...] = ()
    """The directories of the set; none in an archive."""
    excluded: tuple[str, ...] = ()
    """Patterns that kept files out."""
    problems: tuple[ProblemRecord, ...] = ()
    """The first 1000 files that are not in the set as they should be."""
    problem_counts: dict[str, int] = {}
    """All of them, by kind."""
    warnings: tuple[str, ...] = ()
    """Sentences worth a look this week."""
    tools: dict[str, str] = {}
    """Versions of the programs that made the set."""
    labels: dict[str, str] = {}
    """Labels of the plan and of the request."""
    reason: str | None = None
    """Why the caller wanted it, in the caller's words."""
    config_digest: str
    """SHA-256 of the effective configuration, secrets left out."""
    previous: str | None = None
    """SHA-256 of the manifest of the plan's set before this one."""

    @property
    def id(self) -> BackupId:
        """The set's name, typed."""
        return BackupId(self.backup_id)

    @property
    def plan_name(self) -> PlanName:
        """The plan's name, typed."""
        return PlanName(self.plan)

    @property
    def has_nothing(self) -> bool:
        """Whether there was nothing in the subject, as if something were not mounted."""
        return any(text.startswith(EMPTY) for text in self.warnings)

    def encode(self) -> bytes:
        """The file's bytes: indented JSON with a final newline, the same for the same manifest."""
        document = self.model_dump(mode="json")
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode(content: bytes, *, name: str) -> Manifest:
    """The manifest in these bytes. Raises IntegrityError naming the file where it is none."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "document"
        raise IntegrityError(
            f"{name} is not a manifest of format {FORMAT}: {where}: {first['msg']}",
            hint="`holdfast verify` tells what else is damaged; a newer Holdfast may have written it",
        ) from error


def digest(content: bytes) -> str:
    """The SHA-256 by which events and the next manifest of the plan refer to a manifest's bytes."""
    return hashlib.sha256(content).hexdigest()


def scope_digest(handler: str, scope: str) -> str:
    """The manifest's `scope`, of what the handler calls the scope of its options."""
    return hashlib.sha256(f"{handler}\0{scope}".encode("utf-8", "backslashreplace")).hexdigest()


def sums(parts: tuple[PartRecord, ...]) -> bytes:
    """SHA256SUMS as `sha256sum -c` accepts it."""
    return "".join(f"{part.sha256}  {part.name}\n" for part in parts).encode()
