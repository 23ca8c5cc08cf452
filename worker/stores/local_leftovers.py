"""Keeps what a failed attempt had in the trees of its draft, for the plan's next attempt.

    <store>/.holdfast/unfinished/<plan>/<tree>/                     the plan's leftover; its age is that of <plan>/
    <store>/.holdfast/drafts/<backup_id>.<token>.taken/<tree>/      the one that this draft has taken
    <store>/.holdfast/expired/                                      what is to be deleted: out of sight first

A leftover is a draft's directory, renamed, without the parts. Whoever takes it renames it again, so of several who
want it one alone has it; it then lies beside the draft, under the lock of the draft's record. Nothing is known of what
is in it, but that the disk took it: a write that failed is not found good by a look at what memory has of it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from handlers.contract import PlanName
from handlers.tools.atomic import fsync_directory
from handlers.tools.removal import remove_tree
from worker.stores.file_system import is_nearly_full, open_for_sync, sync_file_system
from worker.stores.names import is_harmless

ABANDONED_SECONDS = 7 * 86_400
"""Whoever tries again does so within days. After a week most of what was fetched is of no use, but takes room."""
SCARCE_BYTES = 16 << 30
"""With less room than this (on a small disk: a twentieth of it) no leftover is kept: what saves one plan some work
must not keep the others from their backups."""
_TAKEN_SUFFIX = ".taken"


class Leftovers:
    """The leftovers of a store's plans; any thread, any number of processes. Raises OSError throughout."""

    def __init__(self, own: Path) -> None:
        """`own` is the store's directory `.holdfast`. Touches nothing."""
        self.unfinished = own / "unfinished"
        self._drafts = own / "drafts"
        self._expired = own / "expired"

    def take(self, plan: PlanName, draft: Path) -> Path:
        """Where the plan's leftover is for this draft alone: a directory of trees, which need not be there."""
        taken = _taken_by(draft)
        if not taken.exists():
            with suppress(FileNotFoundError):
                (self.unfinished / plan).rename(taken)
        return taken

    def keep(self, plan: PlanName, draft: Path, sync: int | None = None) -> Sequence[Path]:
        """Make the trees of a draft that failed the plan's leftover, with what it had not used of the one it took.

        The caller holds the draft's record. If we die half way, the draft is still there, or only `withdraw` is left
        to do. Does nothing where the disk did not take everything since `sync` was opened, or is nearly full. Tells
        what to delete: older leftovers.
        """
        if not real_directory(draft):
            return ()
        _remove_files(draft)
        # What the attempt had not come to: a whole tree, or some of it.
        _move_missing(_taken_by(draft), draft)
        if not _has_trees(draft) or is_nearly_full(draft, SCARCE_BYTES) or not _is_on_disk(draft, sync):
            return ()
        os.utime(draft)
        self.unfinished.mkdir(mode=0o700, exist_ok=True)
        older: list[Path] = []
        while not _renamed(draft, self.unfinished / plan):
            older += self._out_of_sight(self.unfinished / plan)
        fsync_directory(self.unfinished)
        fsync_directory(self._drafts)
        return older

    def withdraw(self, draft: Path, plan: PlanName | None = None) -> Sequence[Path]:
        """Take out of sight what is left of a draft and what it took, and the plan's leftover where it is named.

        On return the draft's record is of no use any more. Tells what to delete; a sweep would do it, too.
        """
        paths = [draft, _taken_by(draft)] + ([self.unfinished / plan] if plan is not None else [])
        gone = [moved for path in paths for moved in self._out_of_sight(path)]
        if gone:
            fsync_directory(self._expired)
            fsync_directory(self._drafts)
        return gone

    def sweep(self) -> None:
        """Take out of sight what nobody has asked for in a week; all of it where the disk is nearly full."""
        with suppress(FileNotFoundError), os.scandir(self.unfinished) as found:
            scarce = is_nearly_full(self.unfinished, SCARCE_BYTES)
            for plan in found:
                if not is_harmless(plan.name) or not plan.is_dir(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError):
                    if scarce or time.time() - plan.stat().st_mtime > ABANDONED_SECONDS:
                        self._out_of_sight(Path(plan))

    def _out_of_sight(self, path: Path) -> Sequence[Path]:
        """Where it went; nowhere if it was not there."""
        target = self._expired / f"{path.name}.{os.urandom(8).hex()}"
        try:
            self._expired.mkdir(mode=0o700, exist_ok=True)
            path.rename(target)
        except FileNotFoundError:
            return ()
        return (target,)


def delete(gone: Sequence[Path]) -> None:
    """Delete what was withdrawn."""
    for path in gone:
        remove_tree(path)


def real_directory(path: Path) -> bool:
    """Whether there is a directory, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _taken_by(draft: Path) -> Path:
    return draft.with_name(draft.name + _TAKEN_SUFFIX)


def _remove_files(draft: Path) -> None:
    with os.scandir(draft) as found:
        files = [Path(entry) for entry in found if not entry.is_dir(follow_symlinks=False)]
    for file in files:
        file.unlink(missing_ok=True)


def _has_trees(draft: Path) -> bool:
    """Whether there is a tree with something in it; those with nothing are removed."""
    with os.scandir(draft) as found:
        trees = [Path(entry) for entry in found]
    for tree in trees:
        with suppress(OSError):
            tree.rmdir()
    return any(real_directory(tree) for tree in trees)


def _move_missing(old: Path, new: Path) -> None:
    """Move to the new directory what it lacks, however deep; what both have, but for directories, stays.

    What cannot be moved only costs work. Raises nothing.
    """
    both = [(old, new)]
    while both:
        old, new = both.pop()
        with suppress(OSError), os.scandir(old) as found:
            for entry in found:
                there = new / entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory:
                    _let_owner_in(Path(entry))
                if not os.path.lexists(there):
                    with suppress(OSError):
                        Path(entry).rename(there)
                elif is_directory and real_directory(there):
                    _let_owner_in(there)
                    both.append((Path(entry), there))


def _let_owner_in(directory: Path) -> None:
    """A directory that its owner may not change cannot be moved elsewhere, nor what is in it."""
    with suppress(OSError):
        mode = stat.S_IMODE(directory.lstat().st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            directory.chmod(mode | stat.S_IRWXU)


def _is_on_disk(draft: Path, sync: int | None) -> bool:
    """Whether the disk took everything, as far as the descriptor (opened by the writer, best of all) can tell."""
    descriptor = open_for_sync(draft) if sync is None else sync
    try:
        sync_file_system(descriptor)
    except OSError:
        return False
    finally:
        if sync is None:
            os.close(descriptor)
    return True


def _renamed(draft: Path, target: Path) -> bool:
    """False where something else has the place."""
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            return False
        raise
    return True
