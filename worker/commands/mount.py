"""`holdfast mount`: look around in a set with any program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.options import BackupArgument

if TYPE_CHECKING:
    from worker.entry_table import EntryTable

DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="An empty directory.")]


def mount(ctx: typer.Context, backup: BackupArgument, directory: DirectoryArgument) -> int:
    """Show a set as a read-only file system, until it is unmounted or Ctrl-C; needs `holdfast[mount]` and FUSE."""
    from worker.app import open_catalog
    from worker.browse import open_set
    from worker.fuse_mount import mount as mount_set

    catalog = open_catalog(session.load(ctx).settings)
    opened = open_set(catalog, catalog.find(backup))
    _require_empty(directory)

    def mounted(table: EntryTable) -> None:
        console.note(f"mounted: set {opened.stored.name} at {console.clean(str(directory))}, {table.count:,} entries")
        if table.missing:
            console.note(f"not in the set: {table.missing:,} more; `holdfast ls` names them")
        console.note("Ctrl-C, or `umount` of the directory, ends it")

    mount_set(opened, directory.absolute(), mounted)
    return 0


def _require_empty(directory: Path) -> None:
    try:
        if next(directory.iterdir(), None) is not None:
            raise session.Usage(f"directory {directory} is not empty", hint="what is in it would be hidden")
    except OSError as error:
        raise session.Usage(f"cannot mount at {directory}: {error.strerror}") from error
