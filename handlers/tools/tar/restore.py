"""Brings back what the tar handler stored: the last level of a chain, or single members of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from handlers.contract import Control, Progress, Restored, SetReader, printable
from handlers.errors import PermanentError
from handlers.tools.removal import remove_below
from handlers.tools.tar.access import take_away
from handlers.tools.tar.archive_format import END
from handlers.tools.tar.compare import compare
from handlers.tools.tar.engine import has_gnu_tar, require_gnu_tar
from handlers.tools.tar.extract import Unset, extract
from handlers.tools.tar.guard import MAX_PATH_BYTES, Guard, TooLong
from handlers.tools.tar.index import Member, members, places
from handlers.tools.tar.lookup import TOP, Pick, Picks, find, requested_paths
from handlers.tools.tar.moves import apply_moves, moves_between, open_up, read_moves
from handlers.tools.tar.rewrite import rewritten
from handlers.tools.tar.stored_set import TarSet
from handlers.tools.tar.troubles import Troubles

__all__ = ["compare", "list_members", "restore_chain", "restore_paths"]


def restore_chain(chain: Sequence[SetReader], target: Path, control: Control) -> Restored:
    """Bring back the subject as it was at the last level, below target, which exists and is empty.

    The levels are applied oldest first: what a later one deleted, replaced or renamed is gone on return. Each data part
    is read to its end and checked before this returns. Owners come back only for root. `files` counts the members of
    all levels.

    Raises IntegrityError when a part is not what was written, or an archive holds what could harm anything outside
    target; TemporaryError when the disk is full; PermanentError with the end of GNU tar's messages when it failed.
    Target then holds an unusable part of the tree.
    """
    levels = _levels(chain)
    if len(levels) > 1:
        require_gnu_tar()
    try:
        return _level_by_level(levels, target, control, by_gnu=has_gnu_tar())
    except TooLong as error:
        # GNU tar does not archive such a path as a level: this set stands alone, and was made by our own code.
        if len(levels) > 1:
            raise PermanentError(f"GNU tar cannot restore {error}: its path is too long") from error
        remove_below(target)
        return _level_by_level(_levels(chain), target, control, by_gnu=False)


def _level_by_level(levels: Sequence[TarSet], target: Path, control: Control, *, by_gnu: bool) -> Restored:
    restored = Restored(files=0, bytes_out=0, bytes_read=0)
    attributes: dict[bytes, tuple[bytes, ...]] = {}
    for at, level in enumerate(levels):
        renames = None
        kept: dict[bytes, tuple[bytes, ...]] = {}
        if at > 0:
            if os.geteuid() != 0:
                open_up(target)
            kept = _of_closed(levels[at - 1], level, attributes)
            take_away(target, {path: names for path, names in attributes.items() if path not in kept})
            renames = partial(_apply_renames, levels[at - 1], level, target)
        with closing(level.archive()) as archive:
            guard = Guard(archive, target, renames, of_any_length=not by_gnu)
            chunks = _reported(guard, level, restored, control)
            unset = extract(chunks, target, control, incremental=True, by_gnu=by_gnu)
        restored = _added(restored, guard, unset)
        attributes = {**kept, **guard.directory_attributes}
    return _read(restored, levels)


def _of_closed(
    older: TarSet, newer: TarSet, attributes: Mapping[bytes, tuple[bytes, ...]]
) -> dict[bytes, tuple[bytes, ...]]:
    """The attributes of directories that could not be read, which the newer level leaves as they are."""
    if not attributes or newer.problems() is None:
        return {}
    moves = moves_between(older, newer)
    there = (moves.before(place.path) for place in places(newer.index()) if place.type == "d")
    return {path: attributes[path] for path in attributes.keys() - {b"" if path == TOP else path for path in there}}


def restore_paths(chain: Sequence[SetReader], target: Path, paths: Sequence[bytes], control: Control) -> Restored:
    """Bring back these members as they were at the last level, a directory with all below it, under their own paths.

    Only the indexes are read whole, and of the archives the frames that hold what is needed, each checked before it
    is used. The directories above a member come back too, with their owner and mode; target keeps its own. Asked for
    the top directory (`.`) it does what `restore_chain` does.

    Raises PermanentError naming a path that the last level does not have, before anything is written; otherwise
    what `restore_chain` raises.
    """
    requested = requested_paths(paths)
    if TOP in requested:
        return restore_chain(chain, target, control)
    levels = _levels(chain)
    picks = find(levels, requested, control.checkpoint)
    by_gnu = has_gnu_tar() and not any(_is_long(chosen) for chosen in picks)
    guard = Guard(_gathered(levels, picks), target, of_any_length=not by_gnu)
    nothing = Restored(files=0, bytes_out=0, bytes_read=0)
    chunks = _reported(guard, levels[-1], nothing, control)
    unset = extract(chunks, target, control, incremental=False, by_gnu=by_gnu)
    restored = _added(nothing, guard, unset)
    return _read(replace(restored, notes=tuple(_notes(levels, picks, control.checkpoint))), levels)


def list_members(chosen: SetReader) -> Iterator[Member]:
    """The members of this one set in the order of its archive: every directory, and what the level before did not have.

    Raises IntegrityError when the index is not what was written.
    """
    return members(TarSet(chosen).index())


def _levels(chain: Sequence[SetReader]) -> list[TarSet]:
    levels = [reader.level for reader in chain]
    if not levels or levels[0] != 0 or any(newer <= older for older, newer in pairwise(levels)):
        raise PermanentError(
            f"levels {levels} are no chain", hint="restore a level 0 and every level after it that builds on it"
        )
    return [TarSet(reader) for reader in chain]


def _is_long(chosen: Picks) -> bool:
    return any(len(pick.name) > MAX_PATH_BYTES for pick in chosen)


def _apply_renames(older: TarSet, newer: TarSet, target: Path) -> None:
    moves = read_moves(older, newer)
    if moves:
        apply_moves(target, moves)


def _gathered(levels: Sequence[TarSet], picks: Sequence[Picks]) -> Iterator[bytes]:
    """A small archive made of the picked members: directories from the top, then files, then what shares them."""
    # Newest level first: a directory that an older one has is in one that the newer ones have.
    for level, chosen in zip(reversed(levels), reversed(picks), strict=True):
        for pick in chosen.directories:
            yield from _member(level, pick)
    for level, chosen in zip(levels, picks, strict=True):
        for pick in (*chosen.others, *chosen.links):
            yield from _member(level, pick)
    yield END


def _member(level: TarSet, pick: Pick) -> Iterator[bytes]:
    header, window = level.member_at(pick.block, pick.path)
    headers = bytes(window.take())
    changes = {}
    if pick.name != pick.path:
        changes[b"GNU.sparse.name" if header.sparse else b"path"] = b"./" + pick.name
    if pick.shares is not None and pick.shares != header.link:
        changes[b"linkpath"] = b"./" + pick.shares
    yield rewritten(headers, changes) if changes else headers
    for piece in window.pass_by(header.stored_bytes):
        yield bytes(piece)
    yield bytes(window.take())


def _reported(guard: Guard, level: TarSet, before: Restored, control: Control) -> Iterator[bytes | memoryview]:
    """What the guard lets pass, with the worker told how far it is."""
    for chunk in guard.passed():
        yield chunk
        control.report(
            Progress(
                files=before.files + guard.members,
                bytes_in=level.bytes_read,
                bytes_out=before.bytes_out + guard.bytes_out,
            )
        )


def _added(restored: Restored, guard: Guard, unset: Unset) -> Restored:
    return Restored(
        files=restored.files + guard.members,
        bytes_out=restored.bytes_out + guard.bytes_out,
        bytes_read=0,
        warnings=(*restored.warnings, *_warnings(guard, unset)),
    )


def _warnings(guard: Guard, unset: Unset) -> Iterator[str]:
    if unset.attributes:
        yield f"{unset.attributes} extended attributes could not be set, first: {unset.first}"
    elif unset.lists and guard.has_lists:
        yield f"access control lists could not be set, first: {unset.first}"


def _notes(levels: Sequence[TarSet], picks: Sequence[Picks], checkpoint: Callable[[], None]) -> Iterator[str]:
    """What could not be read since the level that it comes from, in one sentence."""
    troubles = [Troubles(level) for level in levels]
    count, first = 0, ""
    for at, chosen in enumerate(picks):
        since = [each for each in troubles[at + 1 :] if each]
        for pick in chosen if since else ():
            checkpoint()
            why = next((reason for each in since if (reason := each.reason_above(pick.name)) is not None), None)
            if why is not None:
                count += 1
                first = first or f"{printable(pick.name)!r} is as set {levels[at].name} has it ({why} since)"
    if count:
        more = f", and {count - 1} more are as older sets have them" if count > 1 else ""
        yield first + more


def _read(restored: Restored, levels: Sequence[TarSet]) -> Restored:
    return replace(restored, bytes_read=sum(level.bytes_read for level in levels))
