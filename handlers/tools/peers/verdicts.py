"""What became of each peer: decided here, told in the part `peers.json` of the set."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from handlers.contract import SetReader
from handlers.errors import IntegrityError
from handlers.tools.peers.options import Day, LocalPeer, RemotePeer

NAME = "peers.json"
"""The part."""

MAX_NAMED = 100
"""Names of one kind that the part lists for a peer."""

_MAX_BYTES = 64 << 20
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Verdict(StrEnum):
    """What became of a peer."""

    STAGED = "staged"
    """All that it offers is in the set, and was compared."""
    INCOMPLETE = "incomplete"
    """Part of what it offers is in the set; the rest is named among the problems."""
    NOT_READY = "not_ready"
    """It has announced nothing. Nothing of it is in the set."""
    NOTHING_NEW = "nothing_new"
    """It has announced nothing since it was told that it was staged: what it has is in an earlier set, not in this."""
    UNREACHABLE = "unreachable"
    """It could not be reached, was cut, or was too slow; what had arrived whole is in the set."""
    FAILED = "failed"
    """It cannot be staged until somebody changes something. Nothing of it is in the set."""


class PeerRecord(BaseModel):
    """One peer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    kind: Literal["local", "remote"]
    verdict: Verdict
    required: bool
    """Whether the run is no success without it."""
    reason: str | None = None
    """Why it is not `staged`, in words."""
    files: int = Field(default=0, ge=0)
    """Names of it in the set, directories included."""
    bytes: int = Field(default=0, ge=0)
    """Of its regular files."""
    compared: str | None = None
    """How what is in the set was compared with what the peer has."""
    seconds: float = 0.0
    directory: str = ""
    """Its collect directory."""
    indicator: str | None = None
    """Which collect indicator it was: another one, or the same one touched, has another text here."""
    left_out: tuple[str, ...] = ()
    """Indicators that were not staged."""
    refused: tuple[str, ...] = ()
    """The first names that are no regular files, or not allowed in another way, and were not staged."""
    refused_count: int = 0
    problem_count: int = 0
    """All of its files that are not in the set as they should be."""
    taken_again: int = 0
    """How often a file was taken once more, because it changed meanwhile."""
    kept: int = 0
    """Files that an earlier attempt had fetched already, and that were found to be the same."""


class Report(BaseModel):
    """The content of the part."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    plan: str
    backup_id: str
    weekly: bool
    """Whether it was a weekly run, see `starting_day`."""
    begun: AwareDatetime
    finished: AwareDatetime
    peers: tuple[PeerRecord, ...]

    @property
    def line(self) -> bytes:
        """What an indicator says that tells of this set."""
        return line_of(self.plan, self.backup_id)

    @property
    def is_done(self) -> bool:
        """Whether of every required peer all is in a set, so that the whole run may be called a success."""
        return all(record.verdict in {Verdict.STAGED, Verdict.NOTHING_NEW} for record in self.peers if record.required)

    def encode(self) -> bytes:
        """The part's bytes."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def line_of(plan: str, backup_id: str) -> bytes:
    """What an indicator says that tells of this set."""
    return f"{plan}/{backup_id}\n".encode()


def read(made: SetReader) -> Report:
    """The report of a committed set. Raises IntegrityError where it has none that can be read."""
    content = bytearray()
    if NAME not in made.parts:
        raise IntegrityError(f"set {made.backup_id} has no part {NAME}")
    for chunk in made.stream(NAME):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise IntegrityError(f"{NAME} of set {made.backup_id} is larger than {_MAX_BYTES} bytes")
    try:
        return Report.model_validate_json(bytes(content))
    except ValidationError as error:
        raise IntegrityError(
            f"{NAME} of set {made.backup_id} is not what was written: {error.errors()[0]['msg']}"
        ) from error


def is_weekly(starting_day: Day, today: datetime, *, full_asked: bool) -> bool:
    """Whether a run is a weekly one; `today` is in the time zone whose days count."""
    return full_asked or _DAYS[today.weekday()] == starting_day


def is_required(peer: LocalPeer | RemotePeer, *, weekly: bool) -> bool:
    """Whether a run is no success without this peer."""
    match peer.ignore_failures:
        case "none":
            return True
        case "all":
            return False
        case "daily":
            return weekly
        case "weekly":
            return not weekly


def required(peers: Mapping[str, LocalPeer | RemotePeer], *, weekly: bool) -> frozenset[str]:
    """The names of those without which a run is no success."""
    return frozenset(name for name, peer in peers.items() if is_required(peer, weekly=weekly))
