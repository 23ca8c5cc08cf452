"""What every command does first: the configuration, the log, the signals."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import typer

from handlers.errors import PermanentError
from worker.commands import console

if TYPE_CHECKING:
    from loguru import Record
    from pydantic import ValidationError

    from config.load import Loaded

# The pipeline logs these for whoever watches a daemon; a person at a command reads the same in its last lines.
_TOLD_ANYWAY = frozenset({"request_failed", "request_postponed", "store_away"})

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
    """The configuration, with the log set up as it and the flags say; raises ConfigError with every problem of it."""
    from worker import telemetry

    loaded = read(ctx)
    options = given(ctx)
    if options.log_level is None and options.log_format is None:
        log_for_a_person()
    else:
        telemetry.configure(loaded.settings.log.level, loaded.settings.log.format)
    return loaded


def read(ctx: typer.Context) -> Loaded:
    """The configuration as it is now; raises ConfigError with every problem of it."""
    from config.load import load as load_settings
    from config.problems import ConfigError

    options = given(ctx)
    flags = {"log.level": options.log_level, "log.format": options.log_format}
    try:
        return load_settings(options.config, flags=flags)
    except ConfigError as error:
        from worker.plans import with_plans

        raise with_plans(error) from error


def state_dir(ctx: typer.Context) -> Path:
    """The worker's state directory, also where the configuration has a problem: the worker may run on what it was."""
    from config.problems import ConfigError
    from config.settings import Settings

    try:
        return read(ctx).settings.state_dir
    except ConfigError as error:
        named = error.tree.get("state_dir") if isinstance(error.tree, dict) else None
        default = Settings.model_fields["state_dir"].default
        path = Path(named) if isinstance(named, str) else Path(default)
        if not path.is_dir():
            raise
        return path


def log_for_a_person() -> None:
    """Log what somebody who waits at a terminal should see, from now on: warnings, and tracebacks of bugs."""
    import logging

    from loguru import logger

    # Without a handler of ours Python would print the warnings of libraries raw.
    logging.getLogger().addHandler(logging.NullHandler())
    logger.remove()
    logger.add(
        _to_stderr,
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

    def cancel(_number: int, _frame: FrameType | None) -> None:
        # Not here: the handler may have come between any two instructions of this very event's `wait`, which holds
        # the lock that `set` needs.
        _thread.start_new_thread(cancelled.set, ())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, cancel)
    return cancelled


def confirmed(question: str) -> bool:
    """Whether a person says yes. Raises Usage where nobody can be asked."""
    if not sys.stdin.isatty():
        raise Usage("nobody can be asked whether this is meant", hint="add --yes")
    try:
        return typer.confirm(console.clean(question), err=True)
    except typer.Abort:
        return False


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


def refused_value(error: ValidationError) -> Usage:
    """The error for a value that no request can have."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    told = first["msg"].removeprefix("Value error, ")
    return Usage(f"{where}: {told[:1].lower()}{told[1:]}" if where else told)


def _to_stderr(line: str) -> None:
    # Looked up each time: a live progress display puts a stream of its own in the place of stderr.
    console.note(line.rstrip("\n"))


def _line(record: Record) -> str:
    shown = "".join(f" {name}={{extra[{name}]!r}}" for name in record["extra"] if name.isidentifier())
    return "{level.name}: {message}" + shown + "\n{exception}"
