"""Where a request stands, in the words an operator reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from config.hours import parse_hours
from worker.health import Health
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.protocol import Entry
from worker.lifecycle import State
from worker.situation import ConfiguredPlan, Scene, Seen, Situation, see

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
REQUEST = BackupRequest(request_id="r1", data=RequestData(plan="web"))
NEW = Entry(
    request=REQUEST,
    backup_id=REQUEST.backup_id,
    intake="spool",
    state=State.ACCEPTED,
    attempt=0,
    accepted=NOW,
    updated=NOW,
    retry_at=None,
    last_error=None,
    outcome=None,
)
WORKER = Health(pid=1, node="n1", started=NOW)
QUIET = Scene(
    plans={"web": ConfiguredPlan(store="disk", hours=())},
    busy=(),
    worker=WORKER,
    patience=timedelta(days=1),
    now=NOW,
    zone=UTC,
)
BUSY = replace(QUIET, busy=("web",))


def ended(outcome: str, exit_code: int, **more: object) -> Entry:
    """A request with this outcome, told."""
    told = orjson.dumps({"outcome": outcome, "exit_code": exit_code, **more})
    return replace(NEW, state=State.ANNOUNCED, attempt=1, outcome=told)


@pytest.mark.parametrize(
    ("entry", "around", "situation", "following"),
    [
        (NEW, QUIET, Situation.WAITING, "free slot"),
        (NEW, BUSY, Situation.WAITING, "another request"),
        (NEW, replace(QUIET, worker=None), Situation.WAITING, "none runs here"),
        (
            NEW,
            replace(QUIET, worker=WORKER.model_copy(update={"causes": ("store disk is away",)})),
            Situation.WAITING,
            "store disk is away",
        ),
        (NEW, replace(QUIET, plans={}), Situation.WAITING, "removed or disabled"),
        (
            NEW,
            replace(QUIET, plans={"web": ConfiguredPlan(store="disk", hours=(parse_hours("22:00-06:00"),))}),
            Situation.WAITING,
            "hours, from 2026-11-21",
        ),
        (replace(NEW, attempt=2), BUSY, Situation.RUNNING, "attempt 2"),
        (replace(NEW, attempt=2), QUIET, Situation.WAITING, "free slot"),
        (
            replace(NEW, attempt=1, retry_at=LATER, last_error="tar died\nhint: look"),
            BUSY,
            Situation.POSTPONED,
            "tar died",
        ),
        (
            replace(NEW, retry_at=LATER, last_error="store disk: the directory is missing"),
            QUIET,
            Situation.WAITING_FOR_STORE,
            "the directory is missing",
        ),
        (replace(NEW, attempt=1, retry_at=NOW, last_error="tar died"), QUIET, Situation.WAITING, "free slot"),
        (ended("succeeded", 0), QUIET, Situation.SUCCEEDED, ""),
        (ended("partial", 3), QUIET, Situation.PARTIAL, ""),
        (ended("duplicate", 3, original="partial"), QUIET, Situation.PARTIAL, ""),
        (ended("failed", 1, error="no such file\nmore"), QUIET, Situation.FAILED, "nothing: no such file"),
        (ended("refused", 4, error="too late"), QUIET, Situation.REFUSED, "nothing: too late"),
        (ended("failed", 7, error="store away"), QUIET, Situation.PARKED, "until somebody asks again: store away"),
        (replace(ended("failed", 7), again=RequestId("r1~2")), QUIET, Situation.FAILED, "asked again as r1~2"),
        (replace(NEW, state=State.ANNOUNCED, outcome=b'{"from":"the future"}'), QUIET, Situation.FAILED, "nothing"),
    ],
)
def test_a_situation_is_told_with_what_follows(
    entry: Entry, around: Scene, situation: Situation, following: str
) -> None:
    """Each in one word and one line."""
    seen = see(entry, around)

    assert seen.situation is situation
    assert following in seen.next if following else seen.next == ""
    assert "\n" not in seen.next


def test_an_outcome_that_nobody_took_is_unannounced() -> None:
    """It is told that somebody has to."""
    seen: Seen = see(replace(ended("succeeded", 0), state=State.CONCLUDED), QUIET)

    assert not seen.announced
    assert "until somebody takes it" in seen.next
    assert see(NEW, QUIET).announced
