"""One backup set on its way into a local store.

Layout while it is written (`token` is random):

    <store>/.holdfast/drafts/<backup_id>.<token>.owner    our record, locked as long as its owner lives
    <store>/.holdfast/drafts/<backup_id>.<token>/         the parts, and the trees
    <store>/.holdfast/drafts/<backup_id>.<token>.taken/   what it took over, see `worker.stores.local_leftovers`

The record is locked before the directory is made, and removed after the directory is gone: a draft directory without a
record cannot come from us, a record that nobody locks belongs to a dead writer. It lies beside the directory, so
nothing of it gets into the committed set. It names the set, and is durable before there is the first tree: whoever
finds a dead draft with trees knows for which plan they are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from handlers.contract import BackupId, Part, PlanName
from handlers.errors import HoldfastError
from handlers.tools.atomic import fsync_directory, write_durable
from handlers.tools.lock import Lock
from handlers.tools.removal import remove_tree
from worker.manifest import MANIFEST
from worker.stores.disk_errors import require_root, store_error, translated
from worker.stores.file_system import open_for_sync, sync_file_system
from worker.stores.local_leftovers import Leftovers, delete, real_directory
from worker.stores.names import checked_files, checked_name, checked_part, checked_set
from worker.stores.protocol import AlreadyCommitted, SetName, StoreRefused

OWNER_SUFFIX = ".owner"
FILE_MODE = 0o400
DIRECTORY_MODE = 0o700
WRITE_BACK_BYTES = 32 << 20
"""How much is written before the disk is told to begin, so that no long fsync waits at the end. Measured with parts of
512 MiB on a fast disk: 0.03 s instead of 0.14 s at the end, 0.45 s instead of 0.54 s in all. fdatasync from another
thread holds up the writer, and could swallow an error that the last fsync must report."""


def own_record(draft: Path) -> bytes:
    """What the owner file of a draft begins with; it is one JSON object."""
    return b'{"holdfast_draft":' + orjson.dumps(draft.name)


def owned_set(record: bytes) -> SetName | None:
    """The set that the owner of a draft was making; None where the record is torn: with trees it never is."""
    try:
        plan, _, backup_id = str(orjson.loads(record)["set"]).partition("/")
        return checked_set(SetName(plan=PlanName(plan), backup_id=BackupId(backup_id)))
    except (ValueError, KeyError, TypeError):
        return None


class LocalPart:
    """A part being written; `LocalDraft.open_part` makes it."""

    def __init__(self, store: str, path: Path) -> None:
        self._store = store
        self._path = path
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._begun = 0
        """Up to here the disk was told to begin."""
        with translated(store, path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor: int | None = os.open(path, flags, FILE_MODE)

        self.durable = False
        """Whether it was closed without an error; only then may the set be committed."""

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Append the whole chunk; it is not copied.

        Raises StoreUnavailable or StoreRefused; some of it may be written then, and the part is of no use any more.
        """
        descriptor = self._open_descriptor()
        with memoryview(chunk) as shaped, shaped.cast("B") as view:
            self._sha256.update(view)
            try:
                with translated(self._store, self._path):
                    written = 0
                    while written < len(view):
                        written += os.write(descriptor, view[written:] if written else view)
                    self._size += written
                    self._begin_write_back(descriptor)
            except HoldfastError:
                # Whoever carries on regardless must not get a digest of bytes that are not there.
                self.abandon()
                raise
            return written

    def close(self) -> Part:
        """Make the bytes durable. Raises StoreUnavailable or StoreRefused; the part is of no use then."""
        descriptor = self._open_descriptor()
        try:
            with translated(self._store, self._path):
                os.fsync(descriptor)
                # Verification is to read the disk, not our own memory; and what others have cached stays cached.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            self.abandon()
        self.durable = True
        return Part(name=self._path.name, size_bytes=self._size, sha256=self._sha256.hexdigest())

    def abandon(self) -> None:
        """Let go without any promise; safe to repeat."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self._path.name} is closed")
        return self._descriptor

    def _begin_write_back(self, descriptor: int) -> None:
        length = self._size - self._begun
        if length >= WRITE_BACK_BYTES:
            # On dirty pages this starts the write-back, without waiting for it; clean pages are let go.
            os.posix_fadvise(descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._size


class LocalDraft:
    """A set being written; `LocalStore.draft` makes it. Used by one thread at a time, its parts by one thread each."""

    def __init__(
        self, store: str, root: Path, name: SetName, drafts: Path, *, retire_dead: Callable[[], object]
    ) -> None:
        """`retire_dead` makes leftovers of the drafts of dead owners, before a leftover is looked for."""
        self._store = store
        self._root = root
        self._name = name
        self._parts: dict[str, LocalPart] = {}
        self._trees: list[str] = []
        self._sync: int | None = None
        """Open since before anything was written to a tree, or taken over."""
        self._unsound = False
        """Whether the disk has lost something of the trees."""
        self._leftovers = Leftovers(drafts.parent)
        self._retire_dead = retire_dead
        self._done = False
        with translated(store, drafts):
            self._lock, self._path = _own(drafts, name)
            try:
                self._path.mkdir(mode=DIRECTORY_MODE)
            except OSError:
                self._lock.remove()
                raise

    def open_part(self, name: str) -> LocalPart:
        """A writer for a new part. Raises ValueError for a name that is used or harmful."""
        self._require_open()
        part = LocalPart(self._store, self._path / checked_part(name, self._taken_names()))
        self._parts[name] = part
        return part

    def open_tree(self, name: str) -> Path:
        """A new, empty directory of the set. Raises ValueError for a name that is used or harmful.

        What is written there becomes durable with the commit; modes and owners stay as the caller sets them.
        """
        self._require_open()
        tree = self._path / checked_part(name, self._taken_names())
        with translated(self._store, tree):
            self._begin_trees()
            tree.mkdir(mode=DIRECTORY_MODE)
        self._trees.append(name)
        return tree

    def leftover(self, name: str) -> Path | None:
        """What a failed or dead attempt for the plan left in a tree of this name; no other draft gets it, too."""
        self._require_open()
        checked_name(name)
        with translated(self._store, self._path):
            self._begin_trees()
            self._retire_dead()
            tree = self._leftovers.take(self._name.plan, self._path) / name
            return tree if real_directory(tree) else None

    def read_back(self, part: str) -> bytes:
        """A closed part, as the disk has it."""
        with translated(self._store, self._path):
            return (self._path / part).read_bytes()

    def commit(self, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Make the set exist; on return it survives a power cut.

        The rename is the commit point: before it `Store.sweep` removes everything but what is in trees, after it the
        set is whole.
        Raises AlreadyCommitted, StoreUnavailable or StoreRefused; after an error the draft is to be discarded. If the
        error came after the rename, the set is there, and the next commit of this name raises AlreadyCommitted.
        """
        self._require_open()
        unfinished = [name for name, part in self._parts.items() if not part.durable]
        if unfinished:
            raise ValueError(f"still open, or failed: {', '.join(unfinished)}")
        checked_files(files, self._taken_names())
        require_root(self._store, self._root)
        plan = self._root / self._name.plan
        with translated(self._store, self._path):
            self._sync_trees()
            for name, content in files.items():
                write_durable(self._path / name, content, mode=FILE_MODE)
            write_durable(self._path / MANIFEST, manifest, mode=FILE_MODE)
            fsync_directory(self._path)
        with translated(self._store, plan):
            plan.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            if plan.is_symlink():
                # Listing does not follow links (`latest` would be listed twice), so the set would never be found again.
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            # Always, not only when it is new: whoever made it may have died before this line.
            fsync_directory(self._root)
        self._publish(plan / self._name.backup_id)
        # If we die here, the set is whole; sweep removes our record, which has no directory any more, and what we took.
        with translated(self._store, plan):
            fsync_directory(plan)
            fsync_directory(self._path.parent)
            gone = self._leftovers.withdraw(self._path, self._name.plan)
            self._finish()
        with suppress(OSError):
            # The set is there, whatever becomes of the leftover: the next sweep says what is wrong with it.
            delete(gone)

    def discard(self) -> None:
        """Remove what was written; safe to repeat, does nothing after a commit.

        What is in trees is kept for the plan's next attempt, see `leftover`, unless the set is there by now.
        If we die half way, the record is still there, and sweep goes on. So it does when StoreUnavailable or
        StoreRefused is raised: the draft is not ours any more then.
        """
        if self._done:
            return
        for part in self._parts.values():
            part.abandon()
        with translated(self._store, self._path):
            try:
                self._put_by()
                remove_tree(self._path)
                self._finish()
            finally:
                self._close_sync()
                self._lock.release()

    def _begin_trees(self) -> None:
        if self._sync is not None:
            return
        with self._lock.path.open("rb") as record:
            os.fsync(record.fileno())
        fsync_directory(self._lock.path.parent)
        self._sync = open_for_sync(self._path)

    def _sync_trees(self) -> None:
        if self._sync is None:
            return
        if self._unsound:
            raise ValueError(f"the disk did not take all that was written to {', '.join(self._trees)}")
        try:
            sync_file_system(self._sync)
        except OSError:
            # A second try would find all well.
            self._unsound = True
            raise

    def _put_by(self) -> None:
        if self._sync is None:
            return
        committed = self._root / self._name.plan / self._name.backup_id / MANIFEST
        older: Sequence[Path] = ()
        if not self._unsound and not committed.exists():
            older = self._leftovers.keep(self._name.plan, self._path, self._sync)
        delete([*older, *self._leftovers.withdraw(self._path)])

    def _taken_names(self) -> list[str]:
        return [*self._parts, *self._trees]

    def _publish(self, target: Path) -> None:
        try:
            # POSIX: a directory replaces an empty directory or nothing, so two writers cannot both win.
            self._path.rename(target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise store_error(error, self._store, target) from error
            if (target / MANIFEST).exists():
                raise AlreadyCommitted(f"store {self._store} has a set {self._name} already") from error
            raise StoreRefused(
                f"store {self._store}: {target} is in the way: a directory without {MANIFEST}",
                hint="it is no backup of ours: look what it is, then move it away",
            ) from error

    def _finish(self) -> None:
        self._close_sync()
        self._lock.remove()
        self._done = True

    def _close_sync(self) -> None:
        if self._sync is not None:
            os.close(self._sync)
            self._sync = None

    def _require_open(self) -> None:
        if self._done:
            raise ValueError(f"the draft of {self._name} is committed or discarded")


def _own(drafts: Path, name: SetName) -> tuple[Lock, Path]:
    while True:
        path = drafts / f"{name.backup_id}.{secrets.token_hex(8)}"
        lock = Lock.try_hold(path.with_name(path.name + OWNER_SUFFIX))
        if lock is None:
            # A sweep looked at the record in the instant before it was locked, and removes it now.
            continue
        facts = b',"set":%b,"host":%b,"pid":%d}\n' % (
            orjson.dumps(str(name)),
            orjson.dumps(socket.gethostname()),
            os.getpid(),
        )
        try:
            lock.path.write_bytes(own_record(path) + facts)
        except OSError:
            lock.remove()
            raise
        return lock, path
