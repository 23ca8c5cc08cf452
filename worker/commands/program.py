"""All commands, as one program whose every error is one clear block.

A command's module is imported when the command is asked for, and imports what it needs when it runs: to load all of
them, and let typer look at all their options, takes a tenth of the whole start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from handlers.errors import HoldfastError
from worker.commands import console, session
from worker.commands.session import Globals

COMMANDS = {
    "run": ("run:run", "Run the worker."),
    "backup": ("backup:backup", "Make one backup now."),
    "request": ("request:request", "Ask a worker for a backup."),
    "requests": ("requests:app", "Look over requests, ask again, or drop them."),
    "plan": ("plan:plan", "Show what the next backup would be."),
    "list": ("list:list_sets", "List what is stored."),
    "show": ("show:show", "Show one set."),
    "ls": ("ls:ls", "List what is in a set."),
    "cat": ("cat:cat", "Print a file of a set."),
    "diff": ("diff:diff", "Show what changed between two sets."),
    "mount": ("mount:mount", "Show a set as a read-only file system."),
    "manage": ("manage:manage", "Have managed peers do something."),
    "restore": ("restore:restore", "Bring a set back, or single paths of it."),
    "verify": ("verify:verify", "Read what is stored again."),
    "expire": ("expire:expire", "Let go of what retention no longer wants."),
    "keep": ("keep:keep", "Pin a set against expiry."),
    "release": ("release:release", "Take a pin away."),
    "status": ("status:status", "Show what runs and what waits."),
    "doctor": ("doctor:doctor", "Check everything a worker needs."),
    "schema": ("schema:schema", "Print the JSON Schema of a format."),
    "config": ("config:app", None),
    "demo": ("demo:demo", "See a complete round on real files."),
}
"""Each command: where in this package its function is, or its group of commands, and what the list of commands says."""

_BUG_HINT = "this is a bug: please report it with the traceback above"

# typer exports one kind of wrong usage, not the class that all of them share.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


class _OnDemand(Mapping[str, Any]):
    """The commands by name, each made when it is looked up. Their type is one that typer keeps to itself."""

    def __getitem__(self, name: str) -> Any:
        place, short_help = COMMANDS[name]
        module, _, attribute = place.partition(":")
        found = getattr(import_module(f"worker.commands.{module}"), attribute)
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        if isinstance(found, typer.Typer):
            single.add_typer(found, name=name, short_help=short_help)
            return cast("TyperGroup", typer.main.get_command(single)).commands[name]
        single.command(name, short_help=short_help)(found)
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    """What typer makes of all the commands at once, with each made when it is looked up."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("Any", _OnDemand())  # nobody adds to them

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


app = typer.Typer(
    name="holdfast",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.out(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def before(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The configuration; else HOLDFAST_CONFIG names it."),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="trace, debug, info, warning, or error.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option("--log-format", metavar="FORMAT", help="auto, text, or json.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Backups as the answer to requests: one request, one verified set that plain tools can restore."""
    ctx.obj = Globals(config=config, log_level=log_level, log_format=log_format)


def run_program() -> int:
    """Do what the arguments of the process ask for; returns its exit code. Raises nothing but KeyboardInterrupt."""
    console.prepare()
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        return _wrong_usage(error)
    except HoldfastError as error:
        console.error(error.message, error.hint)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the root of the process: a known error is told, any other is a bug
        return _other(error)
    fault = console.fault()
    if fault is not None:
        console.error(f"standard output could not be written: {fault.strerror}")
        return code or 1
    return int(code or 0)


def _wrong_usage(error: typer.BadParameter) -> int:
    where = error.ctx.command_path if error.ctx is not None else "holdfast"
    message = error.format_message()
    if message.startswith("Usage:"):
        console.note(message)  # no arguments at all: the help is the answer
        return 2
    message = message.replace("Value error, ", "")  # pydantic's, which says nothing to a person
    console.error(message[:1].lower() + message[1:].rstrip("."), f"`{where} --help` tells what it takes")
    return 2


def _other(error: Exception) -> int:
    from config.problems import ConfigError

    if isinstance(error, ConfigError):
        console.error(str(error))
        return error.exit_code
    from loguru import logger

    session.log_for_a_person()  # loguru's own handler, there until a configuration is read, would show secrets
    logger.opt(exception=error).error("command_failed")
    console.error(f"{type(error).__name__}: {error}", _BUG_HINT)
    return 1
