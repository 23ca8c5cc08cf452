"""Events as files in a spool, written by the worker, followed by a caller."""

from __future__ import annotations

import errno
import os
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.lock import Lock
from worker.events import EventData, Word, event
from worker.intake.wire import RequestId
from worker.journal.protocol import Announcement, Caller
from worker.spool_client import follow
from worker.spool_events import SpoolEvents, event_file_name, request_mark

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def announcement(
    request_id: str = "r", word: Word = Word.SUCCEEDED, *, when: datetime = NOON, event_id: str | None = None
) -> Announcement:
    data = EventData(outcome=word, request_id=request_id, plan="photos")
    chosen = event_id if event_id is not None else f"{request_id}-{word}"
    return Announcement(
        event_id=chosen,
        sink="spool",
        caller=Caller(),
        body=event(data, event_id=chosen, node="n", now=when).encode(),
        request_id=RequestId(request_id),
    )


def files(spool: Path) -> list[str]:
    return sorted(entry.name for entry in (spool / "events").iterdir() if entry.name != ".kept")


def sink(spool: Path, *, now: datetime = NOON, keep_events_days: float = 7) -> SpoolEvents:
    return SpoolEvents(spool, keep_events_days=keep_events_days, clock=lambda: now)


def test_an_event_is_one_file_whose_name_sorts_by_its_own_time(tmp_path: Path) -> None:
    """Readable outcome and plan, and the body as it was given."""
    later = announcement("b", when=NOON + timedelta(seconds=1))
    earlier = announcement("a", when=NOON - timedelta(days=400))
    events = sink(tmp_path)

    events.send(later)
    events.send(earlier)

    first, second = files(tmp_path)
    assert re.fullmatch(r"20251017T120000\.000000Z-succeeded-photos-[0-9a-f]{16}-[0-9a-f]{32}\.json", first)
    assert (tmp_path / "events" / second).read_bytes() == later.body


def test_the_same_event_again_makes_no_second_file(tmp_path: Path) -> None:
    """After a crash it is sent again, perhaps by a later process: the name depends on the event alone."""
    sink(tmp_path).send(announcement())

    sink(tmp_path, now=NOON + timedelta(hours=1)).send(announcement())

    assert len(files(tmp_path)) == 1


def test_what_a_crash_left_half_written_is_cleared(tmp_path: Path) -> None:
    """The draft has one name for each event, so sending again takes it away."""
    events = sink(tmp_path)
    name = event_file_name(announcement().event_id, announcement().body)
    (tmp_path / "events" / f".{name}.new").write_bytes(b"half")

    events.send(announcement())

    assert files(tmp_path) == [name]


@given(st.text(), st.text(max_size=300), st.text(max_size=300))
def test_no_id_or_plan_makes_an_unsafe_name(event_id: str, plan: str, request_id: str) -> None:
    """Whatever a producer calls things, the name is short plain ASCII without a slash or a leading dot."""
    body = orjson.dumps(
        {
            "type": "holdfast.backup.refused",
            "time": NOON.isoformat(),
            "subject": plan,
            "data": {"request_id": request_id},
        }
    )

    name = event_file_name(event_id, body)

    assert re.fullmatch(
        r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-refused-[A-Za-z0-9._]{1,64}-[0-9a-f]{16}-[0-9a-f]{32}\.json", name
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type": "x"}', b'{"type": "x", "time": "yesterday"}', b"\xff"])
def test_what_is_no_event_can_never_be_delivered(tmp_path: Path, body: bytes) -> None:
    """Trying again would not help, so the outbox is not kept waiting."""
    bad = Announcement(event_id="x", sink="spool", caller=Caller(), body=body, request_id=None)

    with pytest.raises(PermanentError, match="is no event"):
        sink(tmp_path).send(bad)

    assert files(tmp_path) == []


def test_an_event_without_a_request_is_written_too(tmp_path: Path) -> None:
    """A message that could not be read has no id, and its refusal is told all the same."""
    body = event(EventData(outcome=Word.REFUSED), event_id="e", node="n", now=NOON).encode()

    sink(tmp_path).send(Announcement(event_id="e", sink="spool", caller=Caller(), body=body, request_id=None))

    assert "-refused-none-none-" in files(tmp_path)[0]


def test_a_full_disk_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event waits in the outbox and nothing half written is seen; later it goes through."""
    events = sink(tmp_path)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TemporaryError, match="No space left"):
        events.send(announcement())
    seen = [name for name in files(tmp_path) if not name.startswith(".")]
    monkeypatch.setattr(os, "fsync", fsync)
    events.send(announcement())

    assert seen == []
    assert len(files(tmp_path)) == 1


def test_events_are_removed_by_their_list_when_they_are_old(tmp_path: Path) -> None:
    """By when they were written, not by what their name or body says; what others put there stays."""
    sink(tmp_path).send(announcement("old", when=NOON + timedelta(days=900)))
    foreign = tmp_path / "events" / files(tmp_path)[0].replace("succeeded", "failed")
    foreign.write_text("a person's")

    sink(tmp_path, now=NOON + timedelta(days=9)).send(announcement("new"))

    assert len(files(tmp_path)) == 2
    assert foreign.exists()


def test_an_event_is_kept_for_its_days(tmp_path: Path) -> None:
    """Never less than what is configured."""
    sink(tmp_path, now=NOON.replace(hour=0)).send(announcement("old"))

    sink(tmp_path, now=NOON.replace(hour=23) + timedelta(days=7)).send(announcement("new"))

    assert len(files(tmp_path)) == 2


def test_a_removed_directory_is_made_again(tmp_path: Path) -> None:
    """Somebody tidied up by hand."""
    events = sink(tmp_path / "spool")
    (tmp_path / "spool" / "events").rmdir()

    events.send(announcement())

    assert len(files(tmp_path / "spool")) == 1


def test_following_gives_the_events_of_one_request_in_order(tmp_path: Path) -> None:
    """Those that are there already, without those of others."""
    events = sink(tmp_path)
    events.send(announcement("mine", Word.SUCCEEDED, when=NOON + timedelta(seconds=5)))
    events.send(announcement("other"))
    events.send(announcement("mine", Word.STARTED))

    told = [orjson.loads(body)["data"]["outcome"] for body in follow(tmp_path, "mine", 0.0)]

    assert told == ["started", "succeeded"]


def test_following_waits_for_what_is_to_come(tmp_path: Path) -> None:
    """Each event once, as it arrives, until the caller has heard enough."""
    events = sink(tmp_path)
    following = follow(tmp_path, "mine", 20.0)
    events.send(announcement("mine", Word.STARTED))
    first = next(following)
    later = threading.Thread(target=events.send, args=(announcement("mine", when=NOON + timedelta(1)),))
    later.start()

    second = next(following)

    later.join()
    following.close()  # type: ignore[attr-defined]  # a generator, though not promised
    assert [orjson.loads(body)["data"]["outcome"] for body in (first, second)] == ["started", "succeeded"]


def test_following_ends_at_the_deadline(tmp_path: Path) -> None:
    """Also where nothing ever comes, and where there is no spool yet."""
    assert list(follow(tmp_path / "nowhere", "mine", 0.05)) == []


def test_the_mark_of_a_request_is_the_beginning_of_its_sha256() -> None:
    """Producers compute it with `sha256sum`; it is part of what the page promises."""
    assert request_mark("nightly") == "2a3b62b53ddb9f16"


def test_processes_that_send_the_same_events_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A worker and the command line share one outbox: each event is there once, and whole."""
    letters = [announcement(event_id=f"event-{number}") for number in range(60)]
    sinks = [sink(tmp_path) for _ in range(3)]
    errors: list[BaseException] = []

    def send_all(events: SpoolEvents) -> None:
        try:
            for letter in letters:
                events.send(letter)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=send_all, args=(events,)) for events in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert len(files(tmp_path)) == len(letters)
    assert not [name for name in files(tmp_path) if name.startswith(".")]


def test_a_process_that_hangs_with_an_event_does_not_take_us_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again later, like anything that is in the way for a while."""
    monkeypatch.setattr("worker.spool_events._PATIENCE_SECONDS", 0.1)
    events, letter = sink(tmp_path), announcement()
    name = event_file_name(letter.event_id, letter.body)
    events.send(announcement(event_id="another"))
    hanging = Lock.try_hold(tmp_path / "events" / f".{name}.new")
    assert hanging is not None

    with pytest.raises(TemporaryError, match="for too long"):
        events.send(letter)
    hanging.release()
    events.send(letter)

    assert name in files(tmp_path)
