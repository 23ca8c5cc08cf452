"""Histories with the verdicts on them, as text that a person can check.

    # what it is about
    rules: {"daily": 2}
    zone: Europe/Berlin
    now: 2026-11-21 12:00 +0100

    stays  s3  2026-11-20 03:00 +0100  1<s2  verified        | daily: newest of 2026-11-20 (1 of 2)
    goes   s1  2026-11-18 03:00 +0100  0     partial         | partial; daily: 2026-11-18 is not among the last 2 days

A set has a name, the time it was finished, its level with its parent, and marks: `partial`, `empty`, `verified`,
`pin=NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from config.retention import Retention
from handlers.contract import BackupId
from tests.workshop.histories import made
from worker.manifest import Manifest
from worker.retention import Verdict, decide

_MOMENT = "%Y-%m-%d %H:%M %z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A history with its rules."""

    comments: Sequence[str]
    rules: str
    zone: str
    now: datetime
    history: Sequence[Manifest]
    marks: Mapping[BackupId, str]

    def verdicts(self) -> Sequence[Verdict]:
        """What is decided."""
        return decide(
            self.history,
            Retention.model_validate_json(self.rules),
            now=self.now,
            zone=ZoneInfo(self.zone),
            pins={
                backup_id: [mark.removeprefix("pin=") for mark in marks.split() if mark.startswith("pin=")]
                for backup_id, marks in self.marks.items()
                if "pin=" in marks
            },
            verified={backup_id: self.now for backup_id, marks in self.marks.items() if "verified" in marks},
        )

    def text(self) -> str:
        """The case with its verdicts."""
        zone = ZoneInfo(self.zone)
        now = f"{self.now.astimezone(zone):{_MOMENT}}"
        lines = [*self.comments, f"rules: {self.rules}", f"zone: {self.zone}", f"now: {now}", ""]
        for verdict in self.verdicts():
            manifest = verdict.manifest
            level = f"{manifest.level}<{manifest.parent}" if manifest.parent else f"{manifest.level}"
            when = f"{manifest.finished.astimezone(zone):{_MOMENT}}"
            line = f"{'stays' if verdict.keep else 'goes ':<5}  {manifest.backup_id:<3}  {when}  {level:<5}"
            lines.append(f"{line}  {self.marks[manifest.id]:<15} | {'; '.join(verdict.reasons)}")
        return "\n".join([*lines, ""])


def read_case(text: str) -> Case:
    """The case in a text; the verdicts in it are passed over."""
    head, _, body = text.partition("\n\n")
    comments = [line for line in head.splitlines() if line.startswith("#")]
    fields = dict(line.split(": ", 1) for line in head.splitlines() if not line.startswith("#"))
    history: list[Manifest] = []
    marks: dict[BackupId, str] = {}
    for line in body.splitlines():
        _, name, day, time, offset, level, *marked = line.partition("|")[0].split()
        number, _, parent = level.partition("<")
        history.append(
            made(
                name,
                int(number),
                parent or None,
                finished=datetime.fromisoformat(f"{day} {time}{offset}"),
                outcome="partial" if "partial" in marked else "succeeded",
                empty="empty" in marked,
            )
        )
        marks[BackupId(name)] = " ".join(marked)
    return Case(
        comments=comments,
        rules=fields["rules"],
        zone=fields["zone"],
        now=datetime.fromisoformat(fields["now"].replace(" +", "+").replace(" -", "-")),
        history=history,
        marks=marks,
    )
