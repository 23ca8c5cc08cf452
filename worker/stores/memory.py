"""Keeps backup sets in memory, held to the same contract as the stores on disk; tests work with it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from typing import NoReturn

from handlers.contract import Part, PlanName
from worker.manifest import MANIFEST
from worker.stores.names import checked_files, checked_lease, checked_name, checked_note, checked_part, checked_set
from worker.stores.protocol import AlreadyCommitted, SetMissing, SetName, StoreRefused

CHUNK_BYTES = 1 << 20


class MemoryPart:
    """A part being written; `MemoryDraft.open_part` makes it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._content = bytearray()
        self.closed: bytes | None = None

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Append a copy of the whole chunk."""
        if self.closed is not None:
            raise ValueError(f"{self._name} is closed")
        with memoryview(chunk) as shaped:
            self._content += shaped.cast("B")
            return shaped.nbytes

    def close(self) -> Part:
        """Fix the bytes."""
        if self.closed is not None:
            raise ValueError(f"{self._name} is closed")
        self.closed = bytes(self._content)
        return Part(name=self._name, size_bytes=len(self.closed), sha256=hashlib.sha256(self.closed).hexdigest())


class MemoryDraft:
    """A set being written; `MemoryStore.draft` makes it."""

    def __init__(self, store: MemoryStore, name: SetName) -> None:
        self._store = store
        self._name = name
        self._parts: dict[str, MemoryPart] = {}
        self._done = False

    def open_part(self, name: str) -> MemoryPart:
        """A writer for a new part. Raises ValueError for a name that is used or harmful."""
        self._require_open()
        part = MemoryPart(checked_part(name, self._parts))
        self._parts[name] = part
        return part

    def open_tree(self, name: str) -> NoReturn:
        """Raises StoreRefused: memory has no directories. Raises ValueError for a name that is used or harmful."""
        self._require_open()
        checked_part(name, self._parts)
        raise StoreRefused(
            f"store {self._store.name} holds single files only, and {name} of set {self._name} needs a directory",
            hint="plans of this handler need a store of kind local",
        )

    def leftover(self, name: str) -> None:
        """None: there never was a tree."""
        self._require_open()
        checked_name(name)

    def commit(self, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Make the set exist. Raises AlreadyCommitted."""
        self._require_open()
        contents = {name: part.closed for name, part in self._parts.items() if part.closed is not None}
        if len(contents) < len(self._parts):
            raise ValueError(f"still open, or failed: {', '.join(self._parts.keys() - contents.keys())}")
        checked_files(files, self._parts)
        self._store.put(self._name, {**contents, **files, MANIFEST: manifest})
        self._done = True

    def discard(self) -> None:
        """Forget what was written; safe to repeat, does nothing after a commit."""
        self._parts.clear()
        self._done = True

    def _require_open(self) -> None:
        if self._done:
            raise ValueError(f"the draft of {self._name} is committed or discarded")


class MemoryStore:
    """A store that lives as long as this object; safe from any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sets: dict[SetName, dict[str, bytes]] = {}
        self._leases: dict[SetName, bytes] = {}
        self._notes: dict[tuple[PlanName, str, str], bytes] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As in the configuration."""
        return self._name

    def draft(self, name: SetName) -> MemoryDraft:
        """Begin a set."""
        return MemoryDraft(self, checked_set(name))

    def put(self, name: SetName, contents: dict[str, bytes]) -> None:
        """Take a whole set in, at once. Raises AlreadyCommitted."""
        with self._lock:
            if name in self._sets:
                raise AlreadyCommitted(f"store {self._name} has a set {name} already")
            self._sets[name] = contents

    def names(self, plan: PlanName | None = None) -> Iterator[SetName]:
        """The committed sets, in no order."""
        with self._lock:
            present = list(self._sets)
        return iter([name for name in present if plan is None or name.plan == plan])

    def exists(self, name: SetName) -> bool:
        """Whether the set is committed."""
        return checked_set(name) in self._sets

    def read(self, name: SetName, file: str) -> bytes:
        """A file of a committed set. Raises SetMissing."""
        checked_name(file)
        with self._lock:
            contents = self._sets.get(checked_set(name))
        if contents is None:
            raise SetMissing(f"store {self._name} has no set {name}")
        if file not in contents:
            raise SetMissing(f"store {self._name}: the set {name} has no file {file}")
        return contents[file]

    def stream(self, name: SetName, file: str) -> Iterator[bytes]:
        """The file in chunks of 1 MiB. Raises SetMissing."""
        content = self.read(name, file)
        return (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))

    def read_range(self, name: SetName, file: str, offset: int, length: int) -> bytes:
        """These bytes of the file; fewer only at its end. Raises SetMissing."""
        if offset < 0 or length < 0:
            raise ValueError(f"no range of a file: {length} bytes at {offset}")
        return self.read(name, file)[offset : offset + length]

    def tree(self, name: SetName, tree: str) -> NoReturn:
        """Raises SetMissing: no set has a tree here."""
        checked_set(name)
        raise SetMissing(f"store {self._name}: the set {name} has no tree {checked_name(tree)}")

    def size(self, name: SetName, file: str) -> int:
        """Bytes of a file of a committed set. Raises SetMissing."""
        return len(self.read(name, file))

    def expire(self, name: SetName) -> None:
        """Make the set not exist; gone already is fine."""
        with self._lock:
            self._sets.pop(checked_set(name), None)

    def read_lease(self, name: SetName) -> bytes | None:
        """The lease record of a set, None where there is none."""
        with self._lock:
            return self._leases.get(checked_set(name))

    def swap_lease(self, name: SetName, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old`, only where the record is exactly `old`; says whether it did."""
        checked_lease(new)
        with self._lock:
            if self._leases.get(checked_set(name)) != old:
                return False
            if new is None:
                self._leases.pop(name, None)
            else:
                self._leases[name] = new
            return True

    def notes(self, plan: PlanName, kind: str) -> Mapping[str, bytes]:
        """The notes of a kind about a plan's sets."""
        wanted = checked_name(plan), checked_name(kind)
        with self._lock:
            return {name: content for (*of, name), content in self._notes.items() if tuple(of) == wanted}

    def put_note(self, plan: PlanName, kind: str, name: str, content: bytes, *, replace: bool) -> bool:
        """Make a note; False where there is one of this name and `replace` is false."""
        key = PlanName(checked_name(plan)), checked_name(kind), checked_name(name)
        checked_note(content)
        with self._lock:
            if key in self._notes and not replace:
                return False
            self._notes[key] = content
            return True

    def drop_note(self, plan: PlanName, kind: str, name: str) -> None:
        """Remove a note; gone already is fine."""
        key = PlanName(checked_name(plan)), checked_name(kind), checked_name(name)
        with self._lock:
            self._notes.pop(key, None)

    def noted_plans(self) -> Iterator[PlanName]:
        """The plans that have a note of any kind, in no order."""
        with self._lock:
            return iter({plan for plan, _, _ in self._notes})

    def sweep(self) -> int:
        """Remove the leases of committed sets; a draft in memory dies with its writer."""
        with self._lock:
            useless = self._leases.keys() & self._sets.keys()
            for name in useless:
                del self._leases[name]
        return len(useless)

    def free_bytes(self) -> int | None:
        """None: memory is shared with everybody else."""
        return None

    def check(self) -> None:
        """Always well."""
