"""Where log lines go: text for people, JSON lines for machines.

The message is a constant event name, facts are fields. `diagnose` stays off: it would print the values of local
variables, passwords included.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import orjson
from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

Level = Literal["trace", "debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json"]


def configure(level: Level, form: Format, stream: TextIO = sys.stderr) -> None:
    """Send the log of this process to a stream, from now on there alone."""
    logger.remove()
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    text = form == "text" or (form == "auto" and stream.isatty())
    if text:
        logger.add(
            stream, level=level.upper(), format=_text_line, colorize=stream.isatty(), diagnose=False, backtrace=False
        )
    else:
        logger.add(lambda message: _write(stream, message), level=level.upper(), format=_nothing, diagnose=False)


class _Forward(logging.Handler):
    """Sends what libraries say through `logging` the same way; their sentence is a field, not the event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        logger.log(record.levelname, "library_said", library=record.name, text=record.getMessage())


def _write(stream: TextIO, message: Message) -> None:
    stream.write(json_line(message.record))
    stream.flush()


def _nothing(_: Record) -> str:
    return ""


def json_line(record: Record) -> str:
    """One record as one line of JSON, its fields beside time, level and event."""
    line: dict[str, object] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name.lower(),
        "event": record["message"],
    }
    # A field never takes the place of what every line has.
    line |= {name: value for name, value in record["extra"].items() if name not in line}
    if record["exception"] is not None:
        line["exception"] = _traceback(record)
    return orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE).decode()


def _traceback(record: Record) -> str:
    import traceback

    caught = record["exception"]
    return "".join(traceback.format_exception(*caught)) if caught is not None else ""


def _text_line(record: Record) -> str:
    fields = "".join(f" {name}={{extra[{name}]!r}}" for name in record["extra"] if name.isidentifier())
    return "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> <bold>{message}</bold>" + fields + "\n{exception}"
