"""`holdfast ls`: what is in a set, without restoring it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.options import BackupArgument, JsonOption

if TYPE_CHECKING:
    from handlers.contents import Entry
    from worker.browse import Opened

DirArgument = Annotated[
    str, typer.Argument(metavar="[DIR]", help="A directory of the set; without, the top.", show_default=False)
]
LongOption = Annotated[bool, typer.Option("--long", "-l", help="Also type, mode, owner, size, and time.")]
RecursiveOption = Annotated[bool, typer.Option("--recursive", "-R", help="All below the directory, as whole paths.")]
NullOption = Annotated[bool, typer.Option("--null", "-0", help="A zero byte after each name, for `xargs -0`.")]

_MAX_TOLD = 20
_WRITE_BYTES = 1 << 16


def ls(
    ctx: typer.Context,
    backup: BackupArgument,
    directory: DirArgument = ".",
    long: LongOption = False,
    recursive: RecursiveOption = False,
    null: NullOption = False,
    as_json: JsonOption = False,
) -> int:
    """List a directory of a set as it was when the set was made; only the indexes are read."""
    from worker.app import open_catalog
    from worker.browse import open_set, path_of
    from worker.commands.entries import document

    if as_json and (null or long):
        raise session.Usage("--json has all there is", hint="leave out --long and --null")
    catalog = open_catalog(session.load(ctx).settings)
    opened = open_set(catalog, catalog.find(backup))
    found = _found(opened, path_of(os.fsencode(directory)), recursive=recursive)
    if as_json:
        for _, entry in found:
            console.json_line(document(entry))
    else:
        _tell(found, long=long, null=null)
    return 0


def _found(opened: Opened, path: bytes, *, recursive: bool) -> Iterator[tuple[bytes, Entry]]:
    """Each entry with its name as it is to be shown."""
    from handlers.contents import EntryType

    entry, inside = opened.look(path)
    if entry.type is not EntryType.DIRECTORY:
        yield path, entry
    elif recursive:
        yield from ((each.path, each) for each in opened.contents.walk(path))
    else:
        yield from ((each.path.rpartition(b"/")[2], each) for each in inside)


def _tell(found: Iterator[tuple[bytes, Entry]], *, long: bool, null: bool) -> None:
    from handlers.contract import printable
    from worker.commands.entries import numbers, quoted

    on_terminal = not null and sys.stdout is not None and sys.stdout.isatty()
    missing = 0
    end = b"\0" if null else b"\n"
    waiting = bytearray()
    for name, entry in found:
        if entry.missing is not None and not long:
            missing += 1
            if missing <= _MAX_TOLD:
                console.note(f"not in the set: {printable(entry.path)!r} ({entry.missing})")
            continue
        shown = quoted(name).encode("utf-8", "surrogateescape") if on_terminal else name
        if long:
            shown = numbers(entry).encode() + b" " + shown
            if entry.target is not None:
                target = entry.target
                shown += b" -> " + (quoted(target).encode("utf-8", "surrogateescape") if on_terminal else target)
            if entry.missing is not None:
                shown += f"  [not in the set: {entry.missing}]".encode()
            elif entry.outdated is not None:
                shown += f"  [as set {entry.held_by} has it: {entry.outdated} since]".encode()
        waiting += shown + end
        if on_terminal or len(waiting) >= _WRITE_BYTES:
            if not console.raw(waiting):
                return
            waiting.clear()
    console.raw(waiting)
    if missing > _MAX_TOLD:
        console.note(f"not in the set: {missing - _MAX_TOLD} more; `--json` names all")
