"""`holdfast cat`: the content of one file of a set."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from worker.commands import console, session
from worker.commands.options import BackupArgument

PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="A regular file of the set.")]


def cat(ctx: typer.Context, backup: BackupArgument, path: PathArgument) -> int:
    """Print the content of one file as it was when the set was made; only the frames that hold it are read."""
    from worker.app import open_catalog
    from worker.browse import open_set, path_of

    catalog = open_catalog(session.load(ctx).settings)
    opened = open_set(catalog, catalog.find(backup))
    entry = opened.file(path_of(os.fsencode(path)))
    if entry.outdated is not None:
        console.note(f"note: {path!r} is as set {entry.held_by} has it ({entry.outdated} since)")
    for chunk in opened.contents.read(entry):
        if not console.raw(chunk):
            break
    return 0
