"""`holdfast config`: what is in force, with every problem at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.options import JsonOption

if TYPE_CHECKING:
    from config.load import Loaded

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check or show the configuration.")

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_TEXT = re.compile(r"(?i)true|false|null|yes|no|on|off|y|n")

CommentsOption = Annotated[bool, typer.Option("--origins/--no-origins", help="Say where each value was given.")]


@app.command()
def check(ctx: typer.Context) -> int:
    """Tell every problem of the configuration at once; exit code 2 when there is one."""
    from worker import plans

    loaded = session.load(ctx)
    found = plans.check(loaded)
    file = loaded.file or "no file, defaults and environment alone"
    disabled = len(loaded.settings.plans) - len(found)
    extra = f" ({disabled} disabled)" if disabled else ""
    stores = console.many(len(loaded.settings.stores), "store")
    console.out(f"ok: {file}: {console.many(len(found), 'plan')}{extra}, {stores}")
    return 0


@app.command()
def show(ctx: typer.Context, as_json: JsonOption = False, origins: CommentsOption = True) -> int:
    """Print the settings in force as YAML, secrets masked, each with where it was given."""
    from config.show import show as settings_shown

    loaded = session.load(ctx)
    settings = settings_shown(loaded.settings)
    if as_json:
        console.json_line(settings)
        return 0
    for line in _yaml(settings, (), loaded if origins else None):
        console.out(line)
    return 0


def _yaml(tree: Mapping[str, object], at: tuple[str | int, ...], loaded: Loaded | None) -> Iterator[str]:
    indent = "  " * len(at)
    for key, value in tree.items():
        location = (*at, key)
        head = f"{indent}{_scalar(key)}:"
        if isinstance(value, Mapping) and value:
            yield head
            yield from _yaml(value, location, loaded)
        elif isinstance(value, str):
            yield f"{head} {_scalar(value)}{_origin(location, loaded)}"
        else:
            # JSON is YAML, too.
            yield f"{head} {json.dumps(value, ensure_ascii=False)}{_origin(location, loaded)}"


def _origin(location: tuple[str | int, ...], loaded: Loaded | None) -> str:
    # Of what is in no place the nearest place around it is told, which says nothing about it.
    if loaded is None or location not in loaded.origins:
        return ""
    return f"  # {console.clean(loaded.locate(*location))}"


def _scalar(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text)
    return text if plain else json.dumps(text, ensure_ascii=False)
