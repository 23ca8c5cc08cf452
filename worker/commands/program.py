"""All commands, as one program whose every error is one clear block.

Commands import what they need when they run: `holdfast --help` loads neither the broker's library nor the worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from handlers.errors import HoldfastError
from worker.commands import (
    backup,
    cat,
    config,
    console,
    demo,
    diff,
    doctor,
    expire,
    keep,
    ls,
    manage,
    mount,
    plan,
    release,
    request,
    requests,
    restore,
    run,
    schema,
    session,
    show,
    status,
    verify,
)
from worker.commands import list as listing
from worker.commands.session import Globals

_BUG_HINT = "this is a bug: please report it with the traceback above"

# typer exports one kind of wrong usage, not the class that all of them share.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="holdfast",
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


app.command("run", short_help="Run the worker.")(run.run)
app.command("backup", short_help="Make one backup now.")(backup.backup)
app.command("request", short_help="Ask a worker for a backup.")(request.request)
app.add_typer(requests.app, name="requests", short_help="Look over requests, ask again, or drop them.")
app.command("plan", short_help="Show what the next backup would be.")(plan.plan)
app.command("list", short_help="List what is stored.")(listing.list_sets)
app.command("show", short_help="Show one set.")(show.show)
app.command("ls", short_help="List what is in a set.")(ls.ls)
app.command("cat", short_help="Print a file of a set.")(cat.cat)
app.command("diff", short_help="Show what changed between two sets.")(diff.diff)
app.command("mount", short_help="Show a set as a read-only file system.")(mount.mount)
app.command("manage", short_help="Have managed peers do something.")(manage.manage)
app.command("restore", short_help="Bring a set back, or single paths of it.")(restore.restore)
app.command("verify", short_help="Read what is stored again.")(verify.verify)
app.command("expire", short_help="Let go of what retention no longer wants.")(expire.expire)
app.command("keep", short_help="Pin a set against expiry.")(keep.keep)
app.command("release", short_help="Take a pin away.")(release.release)
app.command("status", short_help="Show what runs and what waits.")(status.status)
app.command("doctor", short_help="Check everything a worker needs.")(doctor.doctor)
app.command("schema", short_help="Print the JSON Schema of a format.")(schema.schema)
app.add_typer(config.app, name="config")
app.command("demo", short_help="See a complete round on real files.")(demo.demo)


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
