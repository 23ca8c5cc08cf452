"""What a log line looks like."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
from loguru import logger

from worker import telemetry


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log as a machine reads it."""
    text = io.StringIO()
    telemetry.configure("debug", "json", text)
    yield text
    logger.remove()
    logging.getLogger().handlers.clear()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """The lines so far."""
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_event_and_fields_are_one_line_of_json(stream: io.StringIO) -> None:
    """Whatever characters are in them."""
    logger.bind(plan="web").info("thing_happened", name='a {b}\n"c" <red>', size_bytes=3)

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["plan"], line["size_bytes"]) == ("thing_happened", "info", "web", 3)
    assert line["name"] == 'a {b}\n"c" <red>'


def test_field_never_replaces_what_every_line_has(stream: io.StringIO) -> None:
    """`level` is the line's, whoever else uses the word."""
    logger.warning("thing_happened", level=0, time="then")

    (line,) = lines(stream)
    assert line["level"] == "warning"
    assert line["time"] != "then"


def test_traceback_shows_no_values(stream: io.StringIO) -> None:
    """A password in a local variable stays there."""
    password = "hunter2-" + "x" * 3
    try:
        raise KeyError(len(password))
    except KeyError as error:
        logger.opt(exception=error).error("thing_broke")

    (line,) = lines(stream)
    assert "KeyError" in str(line["exception"])
    assert password not in stream.getvalue()


def test_what_libraries_say_is_forwarded(stream: io.StringIO) -> None:
    """As one event, their sentence a field."""
    logging.getLogger("kombu").warning("connection %s", "lost")

    (line,) = lines(stream)
    assert (line["event"], line["library"], line["text"]) == ("library_said", "kombu", "connection lost")


def test_text_takes_odd_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """For people; braces and tags in names are shown as they are."""
    text = io.StringIO()
    telemetry.configure("info", "text", text)

    logger.info("thing_happened", path="a{0}<b>")

    logger.remove()
    logging.getLogger().handlers.clear()
    assert "thing_happened" in text.getvalue()
    assert "a{0}<b>" in text.getvalue()
