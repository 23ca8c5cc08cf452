"""The events that tell the outside what became of a request.

Pure. CloudEvents 1.0 in structured mode; `holdfast schema event` prints the JSON Schema. The same words are the
outcomes of the command line, whose exit codes `EXIT_CODES` fixes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from worker.manifest import Counts, Manifest, ProblemRecord

TYPE_PREFIX = "holdfast.backup."
TOLD_PROBLEMS = 10
CONTENT_TYPE = "application/cloudevents+json"


class Word(StrEnum):
    """What an event says; the end of its CloudEvents type."""

    STARTED = "started"
    PROGRESS = "progress"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    DUPLICATE = "duplicate"

    @property
    def is_outcome(self) -> bool:
        """Whether nothing comes after it."""
        return self not in {Word.STARTED, Word.PROGRESS}


class ExitCode:
    """What a process says to a script; the same numbers are in the outcome events."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    REFUSED = 4
    CONFLICT = 5
    INTEGRITY = 6
    TEMPORARY = 7
    INTERRUPTED = 130


class ActionRecord(BaseModel):
    """What became of an action on one peer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    peer: str
    """The peer, as the plan calls it."""
    exit_code: int | None = None
    """What its command ended with; absent where it did not come to an end."""
    output: str = ""
    """The end of what it wrote."""
    error: str | None = None
    """What went wrong, in words."""


class EventData(BaseModel):
    """What an event tells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Word
    """The last word of the event's type."""
    exit_code: int | None = None
    """What `holdfast backup` would have exited with; only for outcomes."""
    request_id: str | None = None
    """The producer's id; absent where the message had none that could be read."""
    backup_id: str | None = None
    """The set the request makes or made."""
    plan: str | None = None
    """The plan that was asked for."""
    operation: str | None = None
    """`backup`, `verify`, `expire` or `manage`."""
    attempt: int | None = None
    """How often the work was begun."""
    level: int | None = None
    """Level of the set."""
    level_reason: str | None = None
    """Why that level."""
    parent: str | None = None
    """The set it builds on."""
    manifest_sha256: str | None = None
    """SHA-256 of the committed manifest.json."""
    counts: Counts | None = None
    """Sizes, of the whole set or so far."""
    stores: tuple[str, ...] = ()
    """Where the set is."""
    expired: tuple[str, ...] = ()
    """The sets that this request let go of, because the plan's retention no longer wants them; the first 1000."""
    expired_count: int | None = None
    """How many they are; absent where nothing was looked through."""
    actions: tuple[ActionRecord, ...] = ()
    """What became of the action of `manage`, peer by peer."""
    verified: str | None = None
    """How deep it was checked after the commit: none, checksums or deep."""
    problem_counts: dict[str, int] = {}
    """Files that are not in the set as they should be, by kind."""
    problems: tuple[ProblemRecord, ...] = ()
    """The first ten of them; the manifest has more."""
    warnings: tuple[str, ...] = ()
    """Sentences worth a look this week."""
    error: str | None = None
    """What went wrong."""
    hint: str | None = None
    """What may help."""
    labels: dict[str, str] = {}
    """As in the request and the plan."""
    started: AwareDatetime | None = None
    """When the subject began to be read."""
    finished: AwareDatetime | None = None
    """When the last part was written."""
    original: Word | None = None
    """For `duplicate`: the outcome that the request had."""

    def encode(self) -> bytes:
        """As JSON, without what is absent."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=False))


class Event(BaseModel):
    """The envelope."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"] = "1.0"
    """CloudEvents version."""
    id: str
    """The same event keeps its id however often it is sent."""
    source: str
    """`/holdfast/<node>`."""
    type: str = Field(pattern=r"^holdfast\.backup\.[a-z]+$")
    """`holdfast.backup.` and the outcome."""
    subject: str | None = None
    """The plan."""
    time: AwareDatetime
    """When it was decided, not when it was sent."""
    datacontenttype: Literal["application/json"] = "application/json"
    """Always JSON."""
    data: EventData
    """What happened."""

    def encode(self) -> bytes:
        """The message body."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))


def event(data: EventData, *, event_id: str, node: str, now: datetime) -> Event:
    """The event that tells these data."""
    return Event(
        id=event_id,
        source=f"/holdfast/{node}",
        type=f"{TYPE_PREFIX}{data.outcome}",
        subject=data.plan,
        time=now,
        data=data,
    )


def event_id(request_id: str, word: Word, *, node: str, turn: str = "") -> str:
    """The id of one of a request's events; a repeat after a crash gets the same.

    Outcomes are one for each request, node and turn; `turn` tells attempts, steps of progress and callers apart.
    """
    fingerprint = hashlib.sha256("\0".join((request_id, node, turn)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{fingerprint[:32]}-{word}"


def stored(manifest: Manifest, *, digest: str, store: str, verified: str, warnings: tuple[str, ...] = ()) -> EventData:
    """The outcome of a request whose set is committed."""
    word = Word(manifest.outcome)
    return EventData(
        outcome=word,
        exit_code=ExitCode.PARTIAL if word is Word.PARTIAL else ExitCode.DONE,
        request_id=manifest.request_id,
        backup_id=manifest.backup_id,
        plan=manifest.plan,
        operation="backup",
        level=manifest.level,
        level_reason=manifest.level_reason,
        parent=manifest.parent,
        manifest_sha256=digest,
        counts=manifest.counts,
        stores=(store,),
        verified=verified,
        problem_counts=manifest.problem_counts,
        problems=manifest.problems[:TOLD_PROBLEMS],
        warnings=manifest.warnings + warnings,
        labels=manifest.labels,
        started=manifest.started,
        finished=manifest.finished,
    )


def duplicate(original: EventData) -> EventData:
    """The answer to a request that had its outcome before: what that outcome was, told again.

    Its exit code is the original's: a script that asks twice gets the same answer.
    """
    return original.model_copy(update={"outcome": Word.DUPLICATE, "original": original.original or original.outcome})
