"""Manifests without a backup: what levels are chosen by, and plans that are backed up day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from config.levels import Levels
from handlers.contract import BackupId
from worker.levels import NOTHING, Choice, Wanted, choose
from worker.manifest import EMPTY, Counts, Manifest

SCOPE = "0" * 64
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NO_POLICY = Levels()
DAY = timedelta(days=1)


def made(
    name: str,
    level: int,
    parent: str | None = None,
    *,
    finished: datetime | None = None,
    outcome: str = "succeeded",
    bytes_out: int = 1000,
    restarts: int = 0,
    empty: bool = False,
) -> Manifest:
    """A manifest; without a time s2 is a minute later than s1."""
    when = finished or BEGAN + timedelta(minutes=int(name[1:]))
    return Manifest.model_validate(
        {
            "backup_id": name,
            "request_id": name,
            "request_digest": "0" * 64,
            "plan": "web",
            "handler": "tar",
            "subject": "/srv/web",
            "scope": SCOPE,
            "level": level,
            "parent": parent,
            "level_reason": "a test",
            "restarts": restarts,
            "host": "here",
            "started": when,
            "finished": when,
            "outcome": outcome,
            "counts": Counts(files=1, bytes_in=bytes_out, bytes_out=bytes_out),
            "parts": (),
            "warnings": (f"{EMPTY}: is something not mounted?",) if empty else (),
            "config_digest": "0" * 64,
        }
    )


def by_id(*manifests: Manifest) -> dict[BackupId, Manifest]:
    """The manifests by their names."""
    return {manifest.id: manifest for manifest in manifests}


def chosen(
    wanted: Wanted,
    manifests: Sequence[Manifest],
    policy: Levels = NO_POLICY,
    *,
    scope: str = SCOPE,
    max_level: int = 9,
    now: datetime = BEGAN + DAY,
    damaged: Mapping[BackupId, str] = NOTHING,
) -> Choice:
    """The choice of a plan with few wishes, a day after its first backup."""
    return choose(wanted, manifests, scope=scope, max_level=max_level, policy=policy, now=now, damaged=damaged)


class Diary:
    """A plan that is backed up once a day at the same hour, which takes ten minutes.

    Each day the same share of the subject becomes new: a level has so many percent of level 0 for each day since its
    parent.
    """

    def __init__(self, policy: Levels = NO_POLICY, *, max_level: int = 9, percent_a_day: int = 4) -> None:
        self.policy = policy
        self.max_level = max_level
        self.percent_a_day = percent_a_day
        self.now = BEGAN
        self.sets: list[Manifest] = []
        self.reasons: list[str] = []

    def back_up(self, wanted: Wanted = "auto", *, outcome: str = "succeeded") -> Manifest:
        """Today's backup."""
        choice = chosen(wanted, self.sets, self.policy, max_level=self.max_level, now=self.now)
        new = made(
            f"s{len(self.sets)}",
            choice.level,
            choice.parent.backup_id if choice.parent else None,
            finished=self.now + timedelta(minutes=10),
            outcome=outcome,
            bytes_out=1_000_000 if choice.parent is None else self._grown(choice.parent),
            restarts=choice.restarts,
        )
        self.sets.append(new)
        self.reasons.append(choice.reason)
        self.now += DAY
        return new

    def levels(self, days: int) -> list[int]:
        """The levels of so many days."""
        return [self.back_up().level for _ in range(days)]

    def _grown(self, parent: Manifest) -> int:
        days = round((self.now - parent.finished) / DAY)
        return 10_000 * self.percent_a_day * days
