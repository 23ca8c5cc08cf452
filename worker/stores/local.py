"""Keeps backup sets in a directory of this machine.

    <path>/<plan>/<backup_id>/         a committed set: parts, small files, manifest.json, perhaps trees
    <path>/.holdfast/drafts/           sets being written, see `worker.stores.local_draft`
    <path>/.holdfast/unfinished/       what failed attempts had in trees, see `worker.stores.local_leftovers`
    <path>/.holdfast/expired/          sets on their way out: whatever is here is removed by the next sweep
    <path>/.holdfast/leases/           who makes which set, see `worker.stores.local_lease`
    <path>/.holdfast/notes/            what people and checks said of sets, see `worker.stores.local_notes`

Directories are 0700, files 0400: a backup holds private files, whatever the umask says. Only what is in a tree has the
modes and owners that the handler gave it. `rsync`, `tar` and `sha256sum` read it as the user of the worker or as root.

The directory itself must exist. Where the disk may be missing, use a directory below the mount point: the mount point
is there without the disk, too. On a network file system flock must work between hosts (NFS without `local_lock`),
otherwise the sweep of one host takes the living drafts of another for dead ones.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from handlers.contract import BackupId, PlanName
from handlers.errors import HoldfastError
from handlers.tools.atomic import fsync_directory
from handlers.tools.lock import Lock
from handlers.tools.removal import remove_tree
from worker.manifest import MANIFEST
from worker.stores.disk_errors import require_root, store_error, translated
from worker.stores.local_draft import DIRECTORY_MODE, OWNER_SUFFIX, LocalDraft, own_record, owned_set
from worker.stores.local_lease import LocalLeases
from worker.stores.local_leftovers import Leftovers, real_directory
from worker.stores.local_notes import LocalNotes
from worker.stores.names import checked_lease, checked_name, checked_note, checked_set, is_harmless
from worker.stores.protocol import SetMissing, SetName, StoreRefused

CHUNK_BYTES = 4 << 20
"""What `stream` reads at once, and reads ahead while the chunk before is being worked on."""
_PROBE_BYTES = 1 << 16
_PROBE = SetName(plan=PlanName("check"), backup_id=BackupId("check"))


class LocalStore:
    """A store below a directory; safe from any thread, shared with any number of processes."""

    def __init__(self, name: str, path: Path) -> None:
        """Touches nothing: a store that is away does not keep the worker from starting."""
        self._name = name
        self._path = path
        self._drafts = path / ".holdfast" / "drafts"
        self._expired = path / ".holdfast" / "expired"
        self._leftovers = Leftovers(path / ".holdfast")
        self._leases = LocalLeases(name, path)
        self._notes = LocalNotes(name, path)

    @property
    def name(self) -> str:
        """As in the configuration."""
        return self._name

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    def draft(self, name: SetName) -> LocalDraft:
        """Begin a set. Raises StoreUnavailable or StoreRefused."""
        checked_set(name)
        self._make_own_directories()
        return LocalDraft(self._name, self._path, name, self._drafts, retire_dead=self._retire_what_can_be)

    def names(self, plan: PlanName | None = None) -> Iterator[SetName]:
        """The committed sets, in no order; files and directories of others are passed over.

        Raises StoreUnavailable where the store's directory is missing, which is not the same as empty.
        """
        require_root(self._name, self._path)
        # What can be no plan's name, such as a path that a person gave, has no sets: nothing outside is looked at.
        wanted = [plan] if plan is not None and is_harmless(plan) else []
        for plan_name in self._directories(self._path) if plan is None else wanted:
            for backup_id in self._directories(self._path / plan_name):
                name = SetName(plan=PlanName(plan_name), backup_id=BackupId(backup_id))
                if self._is_committed(name):
                    yield name

    def exists(self, name: SetName) -> bool:
        """Whether the set is committed. Raises StoreUnavailable where nobody can know."""
        require_root(self._name, self._path)
        return self._is_committed(checked_set(name))

    def read(self, name: SetName, file: str) -> bytes:
        """A small file of a committed set. Raises SetMissing, StoreUnavailable or StoreRefused."""
        descriptor = self._open(name, file)
        try:
            return self._pread(descriptor, name, file, 0, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def stream(self, name: SetName, file: str) -> Iterator[bytes]:
        """The file in chunks of 4 MiB. Raises SetMissing, now or, where it is expired meanwhile, at the first chunk."""
        self.size(name, file)
        return self._chunks(name, file)

    def read_range(self, name: SetName, file: str, offset: int, length: int) -> bytes:
        """These bytes of the file; fewer only at its end. Raises SetMissing, StoreUnavailable or StoreRefused."""
        if offset < 0 or length < 0:
            raise ValueError(f"no range of a file: {length} bytes at {offset}")
        descriptor = self._open(name, file)
        try:
            return self._pread(descriptor, name, file, offset, length)
        finally:
            os.close(descriptor)

    def tree(self, name: SetName, tree: str) -> Path:
        """The directory of a tree of a committed set; a link is none.

        Raises SetMissing, StoreUnavailable or StoreRefused.
        """
        checked_set(name)
        path = self._path / name.plan / name.backup_id / checked_name(tree)
        with translated(self._name, path):
            found = real_directory(path)
        if not found or not self._is_committed(name):
            require_root(self._name, self._path)
            raise SetMissing(f"store {self._name}: there is no set {name}, or it has no tree {tree}")
        return path

    def size(self, name: SetName, file: str) -> int:
        """Bytes of a file of a committed set. Raises SetMissing, StoreUnavailable or StoreRefused."""
        descriptor = self._open(name, file)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def expire(self, name: SetName) -> None:
        """Make the set not exist; gone already is fine.

        One rename takes the whole set out of sight, the manifest with it, so that no reader meets half a set.
        If we die here, sweep removes the rest. A directory without a manifest is no set, and is left alone.
        """
        if not self.exists(name):
            return
        self._make_own_directories()
        source = self._path / name.plan / name.backup_id
        target = self._expired / f"{name.backup_id}.{os.urandom(8).hex()}"
        with translated(self._name, source):
            try:
                source.rename(target)
            except FileNotFoundError:
                return  # somebody else expired it
            fsync_directory(source.parent)
            fsync_directory(self._expired)
            (target / MANIFEST).unlink(missing_ok=True)
            remove_tree(target)

    def read_lease(self, name: SetName) -> bytes | None:
        """The lease record of a set, None where there is none. Raises StoreUnavailable or StoreRefused."""
        return self._leases.read(checked_set(name))

    def swap_lease(self, name: SetName, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`, only where the record is exactly `old`; says whether it did.

        Raises StoreUnavailable or StoreRefused.
        """
        return self._leases.swap(checked_set(name), old, checked_lease(new))

    def notes(self, plan: PlanName, kind: str) -> Mapping[str, bytes]:
        """The notes of a kind about a plan's sets. Raises StoreUnavailable or StoreRefused."""
        return self._notes.read(PlanName(checked_name(plan)), checked_name(kind))

    def put_note(self, plan: PlanName, kind: str, name: str, content: bytes, *, replace: bool) -> bool:
        """Make a durable note; False where there is one of this name and `replace` is false.

        Raises StoreUnavailable or StoreRefused.
        """
        checked_name(plan)
        return self._notes.put(plan, checked_name(kind), checked_name(name), checked_note(content), replace=replace)

    def drop_note(self, plan: PlanName, kind: str, name: str) -> None:
        """Remove a note for good; gone already is fine. Raises StoreUnavailable or StoreRefused."""
        self._notes.drop(PlanName(checked_name(plan)), checked_name(kind), checked_name(name))

    def noted_plans(self) -> Iterator[PlanName]:
        """The plans that have a note of any kind, in no order. Raises StoreUnavailable or StoreRefused."""
        return self._notes.plans()

    def sweep(self) -> int:
        """Remove drafts of dead owners, sets whose expiry was cut short, useless leases, unfinished notes; how many.

        What was in the trees of such a draft becomes the plan's leftover. Those that are old are removed.
        """
        require_root(self._name, self._path)
        for record in self._records():
            self._retire_dead_draft(record)
        with translated(self._name, self._leftovers.unfinished):
            self._leftovers.sweep()
        removed = 0
        for gone in self._listing(self._expired):
            with translated(self._name, self._expired / gone):
                remove_tree(self._expired / gone)
            removed += 1
        return removed + self._leases.sweep(self._is_committed) + self._notes.sweep()

    def free_bytes(self) -> int | None:
        """Room that is left for this user. Raises StoreUnavailable."""
        require_root(self._name, self._path)
        with translated(self._name, self._path):
            room = os.statvfs(self._path)
        return room.f_bavail * room.f_frsize

    def check(self) -> None:
        """Lock, write, fsync, read back and remove, as a draft does it. Raises StoreUnavailable or StoreRefused."""
        content = os.urandom(_PROBE_BYTES)
        draft = self.draft(_PROBE)
        try:
            part = draft.open_part("probe")
            part.write(content)
            part.close()
            if draft.read_back("probe") != content:
                raise StoreRefused(
                    f"store {self._name}: what was written below {self._path} reads back differently",
                    hint="look at the disk's health before trusting it with backups",
                )
        finally:
            draft.discard()

    def _make_own_directories(self) -> None:
        require_root(self._name, self._path)
        for directory in (self._drafts.parent, self._drafts, self._expired):
            with translated(self._name, directory):
                directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)

    def _records(self) -> list[Path]:
        return [self._drafts / name for name in self._listing(self._drafts) if name.endswith(OWNER_SUFFIX)]

    def _retire_what_can_be(self) -> None:
        # Another worker may have died a moment ago, and nobody starts one anew: its request has come to us.
        for record in self._records():
            with suppress(HoldfastError):  # it keeps nobody from a backup: the next sweep says what is wrong with it
                self._retire_dead_draft(record)

    def _retire_dead_draft(self, record: Path) -> None:
        draft = record.with_name(record.name.removesuffix(OWNER_SUFFIX))
        with translated(self._name, draft):
            lock = Lock.try_hold(record)
            if lock is None:
                return
            with lock:
                content = record.read_bytes()
                # Empty: its owner died before it had written, or the power went before the disk had it.
                if content and not content.startswith(own_record(draft)):
                    return
                name = owned_set(content)
                if name is not None and not self._is_committed(name):
                    self._leftovers.keep(name.plan, draft)
                self._leftovers.withdraw(draft)
                lock.remove()

    def _directories(self, path: Path) -> Iterator[str]:
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if is_harmless(entry.name) and entry.is_dir(follow_symlinks=False):
                        yield entry.name
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise store_error(error, self._name, path) from error

    def _listing(self, path: Path) -> list[str]:
        try:
            return [entry.name for entry in path.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise store_error(error, self._name, path) from error

    def _is_committed(self, name: SetName) -> bool:
        manifest = self._path / name.plan / name.backup_id / MANIFEST
        try:
            return stat.S_ISREG(manifest.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise store_error(error, self._name, manifest) from error

    def _open(self, name: SetName, file: str) -> int:
        checked_set(name)
        path = self._path / name.plan / name.backup_id / checked_name(file)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            require_root(self._name, self._path)
            raise SetMissing(f"store {self._name}: there is no set {name}, or it has no file {file}") from error
        except OSError as error:
            raise store_error(error, self._name, path) from error
        # The manifest's own presence is the proof that the set is committed.
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and (file == MANIFEST or self._is_committed(name)):
            return descriptor
        os.close(descriptor)
        raise SetMissing(f"store {self._name}: there is no set {name}, or it has no file {file}")

    def _pread(self, descriptor: int, name: SetName, file: str, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        with translated(self._name, self._path / name.plan / name.backup_id / file):
            while length > 0:
                piece = os.pread(descriptor, min(length, 1 << 30), offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _chunks(self, name: SetName, file: str) -> Iterator[bytes]:
        descriptor = self._open(name, file)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:

                def fetch(offset: int) -> Future[bytes]:
                    return ahead.submit(self._pread, descriptor, name, file, offset, CHUNK_BYTES)

                offset = 0
                coming = fetch(offset)
                while chunk := coming.result():
                    offset += len(chunk)
                    coming = fetch(offset)
                    yield chunk
        finally:
            os.close(descriptor)
