"""The events that tell the outside what became of a request."""

from __future__ import annotations

from datetime import UTC, datetime

import jsonschema
import orjson

from worker.events import Event, EventData, ExitCode, Word, duplicate, event, event_id

NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
DATA = EventData(outcome=Word.SUCCEEDED, exit_code=ExitCode.DONE, request_id="r1", plan="web", backup_id="r1-0")


def test_event_is_a_cloud_event() -> None:
    """With the attributes that the standard requires."""
    letter = orjson.loads(event(DATA, event_id="e1", node="n1", now=NOW).encode())

    assert letter["specversion"] == "1.0"
    assert (letter["id"], letter["source"], letter["type"]) == ("e1", "/holdfast/n1", "holdfast.backup.succeeded")
    assert letter["subject"] == "web"
    assert letter["time"] == "2026-11-21T03:30:00Z"


def test_event_fits_its_published_schema() -> None:
    """What `holdfast schema event` prints is true."""
    letter = orjson.loads(event(DATA, event_id="e1", node="n1", now=NOW).encode())

    jsonschema.validate(letter, Event.model_json_schema())


def test_repeat_of_an_event_keeps_its_id() -> None:
    """So that whoever gets both knows."""
    assert event_id("r1", Word.FAILED, node="n") == event_id("r1", Word.FAILED, node="n")


def test_different_events_have_different_ids() -> None:
    """By request, word, node and turn; parts cannot be shifted into each other."""
    ids = {
        event_id("r1", Word.FAILED, node="n"),
        event_id("r1", Word.PARTIAL, node="n"),
        event_id("r2", Word.FAILED, node="n"),
        event_id("r1", Word.FAILED, node="m"),
        event_id("r1", Word.FAILED, node="n", turn="1"),
        event_id("r1n", Word.FAILED, node="", turn="1"),
    }

    assert len(ids) == 6


def test_duplicate_tells_the_original_outcome() -> None:
    """A script that asks twice gets the same answer, even the third time."""
    partial = DATA.model_copy(update={"outcome": Word.PARTIAL, "exit_code": ExitCode.PARTIAL})

    again = duplicate(duplicate(partial))

    assert (again.outcome, again.original, again.exit_code) == (Word.DUPLICATE, Word.PARTIAL, ExitCode.PARTIAL)


def test_outcome_is_read_back_as_it_was_written() -> None:
    """The journal keeps it as JSON."""
    assert EventData.model_validate_json(DATA.encode()) == DATA
