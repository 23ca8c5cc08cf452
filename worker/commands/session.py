"""What every command does first: the configuration, the log, the signals."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from handlers.errors import PermanentError

if TYPE_CHECKING:
    from loguru import Record

    from config.load import Loaded

# The pipeline logs these for whoever watches a daemon; a person at a command reads the same in its last lines.
_TOLD_ANYWAY = frozenset({"request_failed", "request_postponed"})

Level = Literal["auto", "full", "incremental"] | int


class Usage(PermanentError):
    """The command was given something that it cannot take."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Globals:
    """What was given before the command."""

    config: Path | None = None
    log_level: str | None = None
    log_format: str | None = None


def given(ctx: typer.Context) -> Globals:
    """The options before the command."""
    found = ctx.find_root().obj
    return found if isinstance(found, Globals) else Globals()


def load(ctx: typer.Context) -> Loaded:
    """The configuration; raises ConfigError with every problem of it."""
    from config.load import load as load_settings

    options = given(ctx)
    return load_settings(options.config, flags={"log.level": options.log_level, "log.format": options.log_format})


def attend(ctx: typer.Context, loaded: Loaded) -> None:
    """Log for a person who waits at a terminal: warnings alone, unless a flag asks for more."""
    from loguru import logger

    from worker import telemetry

    options = given(ctx)
    if options.log_level is not None or options.log_format is not None:
        log = loaded.settings.log
        telemetry.configure(log.level, log.format)
        return
    logger.remove()
    # Looked up each time: a live progress display puts its own stream in the place of stderr.
    logger.add(
        lambda message: sys.stderr.write(message) and None,
        level="WARNING",
        format=_line,
        filter=lambda record: record["exception"] is not None or record["message"] not in _TOLD_ANYWAY,
        colorize=False,
        diagnose=False,
        backtrace=False,
    )


def cancel_on_signals() -> threading.Event:
    """An event that the first Ctrl-C (or SIGTERM, or a closed terminal) sets; further ones change nothing."""
    cancelled = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: cancelled.set())
    return cancelled


def level_of(text: str) -> Level:
    """The level that an option names. Raises Usage."""
    match text:
        case "auto" | "full" | "incremental":
            return text
        case _ if text.isascii() and text.isdigit() and int(text) <= 99:
            return int(text)
    raise Usage(f"level {text!r} is none", hint="auto, full, incremental, or a number from 0 to 99")


def labels_of(texts: Sequence[str]) -> Mapping[str, str]:
    """The labels that options give as NAME=VALUE. Raises Usage."""
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Usage(f"label {text!r} is none", hint="write NAME=VALUE")
        labels[name] = value
    return labels


def _line(record: Record) -> str:
    shown = "".join(f" {name}={{extra[{name}]!r}}" for name in record["extra"] if name.isidentifier())
    return "{level.name}: {message}" + shown + "\n{exception}"
