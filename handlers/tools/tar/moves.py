"""Carries directories that were renamed between two levels from their old places to their new ones.

GNU tar notes renames as a list of steps that it replays when it restores. Where a directory took the name of one that
was removed, or where the steps come in an order that does not work, it fails ("Cannot rename ...: Directory not
empty") and leaves half a tree. So it is not left to replay them: what each directory was called before is found out,
and all moves are made at once, each out of the way first. The inodes in the snapshots would seem to tell the old
names too, but where a name was there before GNU tar leaves its old inode in the new snapshot.

Source: GNU tar 1.34, incremen.c, `procdir`, `store_rename` and `try_purge_directory`.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from handlers.contract import printable
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.deep_tree import ENTER, walk
from handlers.tools.removal import remove_at
from handlers.tools.tar.archive_format import Malformed, checked_path
from handlers.tools.tar.stored_set import TarSet

_TEMPORARY = b"\0"
"""Stands for a name that no directory has."""

_MAX_TRACED = 100_000_000


class Moves:
    """Which directories have another name at a level than they had at the level before."""

    def __init__(self, old_names: Mapping[bytes, bytes]) -> None:
        self.old_names = dict(old_names)
        """By new name; a directory that only moved along with the one it is in is not listed."""
        self._new_names = {old: new for new, old in old_names.items()}

    def __bool__(self) -> bool:
        return bool(self.old_names)

    def before(self, path: bytes) -> bytes:
        """The name that this path had at the level before."""
        return _renamed(path, self.old_names)

    def after(self, path: bytes) -> bytes | None:
        """The name that a path of the level before has now, if it was kept; None when another has taken its name."""
        moved = _renamed(path, self._new_names)
        return moved if moved != path or self.before(path) == path else None


def moves_between(older: TarSet, newer: TarSet) -> Moves:
    """What was renamed from one level to the next, see `read_moves`; reads only a frame or two where nothing was."""
    return read_moves(older, newer) if newer.renames() else Moves({})


def read_moves(older: TarSet, newer: TarSet) -> Moves:
    """What was renamed from one level to the next, by the newer archive. Memory grows with the number of renames.

    Raises PermanentError where the top directory itself was replaced.
    """
    steps = _steps(newer.renames())
    candidates = _candidates(steps)
    possible = {name for names in candidates.values() for name in names}
    known = {name for name in snapshot_directories(older.snapshot()) if name in possible}
    moved = {new: next((name for name in names if name in known), names[0]) for new, names in candidates.items()}
    if b"" in moved or b"" in moved.values():
        raise PermanentError(
            f"at level {newer.level} the top directory is what was {printable(moved.get(b'', b'.'))!r} before",
            hint=f"restore level {older.level}, or this level's set alone with plain GNU tar",
        )
    return Moves({new: old for new, old in moved.items() if new != old})


def _steps(records: bytes) -> list[tuple[bytes, bytes]]:
    """Old name with new one of each step, in order."""
    steps: list[tuple[bytes, bytes]] = []
    source = b""
    for step in records.split(b"\0")[:-1]:
        try:
            path = checked_path(step[1:]) if step[1:] else _TEMPORARY
        except Malformed as error:
            raise IntegrityError(f"archive tells of a renamed directory with {error}") from error
        if step[:1] == b"R":
            source = path
        elif step[:1] == b"T":
            steps.append((source, path))
    return steps


def _candidates(steps: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """What each renamed directory may have been called before, likeliest first.

    GNU tar writes the steps so that they can be replayed; but the order is that of its own table, and a step may come
    before that of a directory above, whose new name it already has.
    """
    if len(steps) ** 2 > _MAX_TRACED:
        raise PermanentError(
            f"archive tells of {len(steps)} renamed directories",
            hint="restore an older level, or this one with plain GNU tar",
        )
    last = {new: old for old, new in steps if new != _TEMPORARY}
    return {
        new: [_traced_back(new, steps), _traced_back(old, [step for step in steps if step != (old, new)]), old]
        for new, old in last.items()
    }


def _traced_back(name: bytes, steps: Sequence[tuple[bytes, bytes]]) -> bytes:
    for source, new in reversed(steps):
        if name == new or name.startswith(new + b"/"):
            name = source + name[len(new) :]
    return name


def _renamed(path: bytes, names: Mapping[bytes, bytes]) -> bytes:
    if not names:
        return path
    end = len(path)
    while end > 0:
        found = names.get(path[:end])
        if found is not None:
            return found + path[end:]
        end = path.rfind(b"/", 0, end)
    return path


def snapshot_directories(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The directories in a snapshot file of format 2. Raises IntegrityError for any other format, or a torn file."""
    fields = _fields(chunks)
    start = next(fields, b"").split(b"\n")
    if len(start) != 2 or not start[0].startswith(b"GNU tar-") or not start[0].endswith(b"-2"):
        raise IntegrityError(f"snapshot is of an unknown format: {start[0][:40]!r}")
    next(fields, None)
    for _nfs in fields:
        entry = list(islice(fields, 5))
        names_end = False
        for name in fields:
            if not name:
                names_end = True
                break
        if not names_end or next(fields, None) != b"" or len(entry) != 5:
            raise IntegrityError("snapshot is cut short")
        try:
            yield checked_path(entry[-1])
        except Malformed as error:
            raise IntegrityError(f"snapshot has {error}") from error


def _fields(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *fields, rest = (rest + chunk).split(b"\0")
        yield from fields
    if rest:
        raise IntegrityError("snapshot is cut short")


def apply_moves(target: Path, moves: Moves) -> None:
    """Rename directories below target; what is in the way of a new name is deleted.

    No symbolic link is followed, so nothing outside target is touched. Raises IntegrityError when a directory that
    should move is not there.
    """
    aside = f".holdfast-moving-{secrets.token_hex(8)}".encode()
    root = os.open(target, ENTER)
    try:
        os.mkdir(aside, 0o700, dir_fd=root)
        away = os.open(aside, ENTER, dir_fd=root)
        try:
            _move_all(root, away, moves)
        finally:
            os.close(away)
            remove_at(root, aside)
    finally:
        os.close(root)


def _move_all(root: int, away: int, moves: Moves) -> None:
    # Out first, the deepest names before those above them; then in, from the top.
    numbered = list(enumerate(moves.old_names.items()))
    for number, (_, old) in sorted(numbered, key=lambda item: item[1][1].count(b"/"), reverse=True):
        _move_out(root, away, old, b"moved-%d" % number)
    for number, (new, _) in sorted(numbered, key=lambda item: item[1][0].count(b"/")):
        _move_in(root, away, new, b"moved-%d" % number)


def _move_out(root: int, away: int, old: bytes, slot: bytes) -> None:
    *parents, name = old.split(b"/")
    try:
        parent = _descend(root, parents)
        try:
            os.close(_opened(parent, name))
            os.rename(name, slot, src_dir_fd=parent, dst_dir_fd=away)
        finally:
            os.close(parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntegrityError(
            f"directory {printable(old)!r} was renamed, but the level before did not leave it there: {error}",
            hint="GNU tar loses track of directories that take each other's names; restore an older level",
        ) from error


def _move_in(root: int, away: int, new: bytes, slot: bytes) -> None:
    *parents, name = new.split(b"/")
    at = os.dup(root)
    try:
        for step, parent in enumerate(parents):
            _set_aside(at, parent, away, slot + b"-above-%d" % step, unless_directory=True)
            with suppress(FileExistsError):
                os.mkdir(parent, 0o700, dir_fd=at)
            below = _opened(at, parent)
            os.close(at)
            at = below
        _set_aside(at, name, away, slot + b"-old", unless_directory=False)
        os.rename(slot, name, src_dir_fd=away, dst_dir_fd=at)
    finally:
        os.close(at)


def _set_aside(at: int, name: bytes, away: int, slot: bytes, *, unless_directory: bool) -> None:
    try:
        found = os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        return
    if unless_directory and stat.S_ISDIR(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        os.close(_opened(at, name))
    os.rename(name, slot, src_dir_fd=at, dst_dir_fd=away)


def _descend(root: int, names: Iterable[bytes]) -> int:
    at = os.dup(root)
    for name in names:
        try:
            below = _opened(at, name)
        finally:
            os.close(at)
        at = below
    return at


def _opened(parent: int, name: bytes) -> int:
    """The directory itself, never what a symbolic link points to; writable for its owner even if it was not."""
    _let_owner_in(parent, name)
    return os.open(name, ENTER, dir_fd=parent)


def _let_owner_in(parent: int, name: bytes) -> None:
    """Its permissions are the next level's to set: every level holds every directory."""
    if os.geteuid() != 0:
        found = os.lstat(name, dir_fd=parent)
        if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
            os.chmod(name, stat.S_IMODE(found.st_mode) | 0o700, dir_fd=parent)


def open_up(target: Path) -> None:
    """Let the owner write into target and every directory below: GNU tar needs that for the next level, unless root."""
    target.chmod(stat.S_IMODE(target.stat().st_mode) | 0o700)
    top = os.open(target, ENTER)
    try:
        for _ in walk(top, _let_owner_in):
            pass
    finally:
        os.close(top)
