"""`holdfast diff`: what changed from one set to another."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from handlers.errors import PermanentError
from worker.commands import console, session
from worker.commands.options import JsonOption, complete_backup

if TYPE_CHECKING:
    from handlers.contents import Entry
    from worker.browse import Change
    from worker.commands.console import Style

OlderArgument = Annotated[
    str, typer.Argument(metavar="BACKUP", help="The older set.", autocompletion=complete_backup, show_default=False)
]
NewerArgument = Annotated[
    str, typer.Argument(metavar="BACKUP", help="The newer set.", autocompletion=complete_backup, show_default=False)
]
ContentOption = Annotated[
    bool, typer.Option("--content", help="Compare the bytes of files of the same size, too; may read all of both sets.")
]

DIFFERENT = 1


def diff(
    ctx: typer.Context,
    older: OlderArgument,
    newer: NewerArgument,
    content: ContentOption = False,
    as_json: JsonOption = False,
) -> int:
    """Show what was added, removed, changed, and renamed from one set to another; exit code 1 when anything was."""
    from worker.app import open_catalog
    from worker.browse import differences, open_set, same_content, with_renames

    catalog = open_catalog(session.load(ctx).settings)
    counts: Counter[str] = Counter()
    try:
        before, after = (open_set(catalog, catalog.find(backup)) for backup in (older, newer))
        changes = differences(before, after, by_content=content)
        for change in with_renames(
            changes, same=lambda ours, theirs: not content or same_content(before, ours, after, theirs)
        ):
            counts[change.kind] += 1
            if as_json:
                console.json_line(_document(change))
            else:
                _tell(change)
    except PermanentError as error:
        if error.exit_code != DIFFERENT:
            raise
        # 1 says that the sets are different, which is not known here.
        raise session.Usage(error.message, hint=error.hint) from error
    if not as_json:
        console.out(", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "no difference")
    return DIFFERENT if counts else 0


def _tell(change: Change) -> None:
    from worker.browse import ChangeKind
    from worker.commands.entries import quoted

    styles: dict[ChangeKind, Style] = {ChangeKind.ADDED: "good", ChangeKind.REMOVED: "bad"}
    name = quoted(change.path)
    if change.kind is ChangeKind.RENAMED and change.older is not None:
        name = f"{quoted(change.older.path)} -> {name}"
    console.out(f"{console.paint(f'{change.kind:<8}', styles.get(change.kind, 'warn'))} {name}{_details(change)}")


def _details(change: Change) -> str:
    """What changed, in brackets."""
    entry = change.newer or change.older
    if change.older is not None and change.newer is not None:
        words = [_change(word, change.older, change.newer) for word in change.what]
    else:
        words = [f"not in the set: {entry.missing}"] if entry is not None and entry.missing is not None else []
    return f"  ({', '.join(words)})" if words else ""


def _change(word: str, older: Entry, newer: Entry) -> str:
    """One thing that changed, with what it was and is."""
    from worker.commands.entries import quoted, time_text

    match word:
        case "type":
            return f"type {older.type} -> {newer.type}"
        case "size":
            return f"size {older.size:,} -> {newer.size:,}"
        case "mtime":
            before, after = time_text(older.mtime_ns), time_text(newer.mtime_ns)
            return f"mtime {before} -> {after}" if before != after else "mtime by less than a second"
        case "mode":
            return f"mode {older.mode or 0:04o} -> {newer.mode or 0:04o}"
        case "owner":
            return f"owner {older.uid}:{older.gid} -> {newer.uid}:{newer.gid}"
        case "target":
            return f"target {quoted(older.target or b'')} -> {quoted(newer.target or b'')}"
        case "missing":
            return "not in the older set" if older.missing is not None else f"not in the newer set: {newer.missing}"
    return word


def _document(change: Change) -> dict[str, object]:
    from handlers.contract import printable
    from worker.commands.entries import document

    found: dict[str, object] = {"change": change.kind, "path": printable(change.path)}
    if change.what:
        found["what"] = change.what
    if change.older is not None:
        found["older"] = document(change.older)
    if change.newer is not None:
        found["newer"] = document(change.newer)
    return found
