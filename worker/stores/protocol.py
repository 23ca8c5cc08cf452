"""What every store promises.

A store holds committed backup sets, each a folder of files named `<plan>/<backup_id>`. A set exists when its manifest
does. `tests/contract/test_store.py` holds every store to this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from handlers.contract import BackupId, PlanName, Sink
from handlers.errors import PermanentError, TemporaryError


class StoreUnavailable(TemporaryError):
    """The store is full, away or too slow: later it may work."""

    uses_up_attempt = False


class StoreRefused(PermanentError):
    """The store said no: a person must look."""


class AlreadyCommitted(PermanentError):
    """A set of this name exists already; it was left as it is."""

    exit_code = 5


class SetMissing(PermanentError):
    """There is no committed set of this name, or it has no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetName:
    """Where a set lives inside a store."""

    plan: PlanName
    backup_id: BackupId

    def __str__(self) -> str:
        return f"{self.plan}/{self.backup_id}"


class Draft(Sink, Protocol):
    """A set that is being written; no reader sees any of it.

    If we die half way, `Store.sweep` removes it: its owner's lock went with the owner. What is in trees is then kept
    for the plan's next draft, see `leftover`; so it is when the draft is discarded.
    """

    def commit(self, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Make the set exist: the small files first, the manifest last, only where none is there.

        On return the set, with all that is in its trees, survives a power cut. Raises AlreadyCommitted (the draft is
        then still to be discarded), StoreUnavailable or StoreRefused.
        """

    def discard(self) -> None:
        """Remove the parts that were written; safe to repeat, does nothing after a commit."""


class Store(Protocol):
    """A place where backups live."""

    @property
    def name(self) -> str:
        """As in the configuration."""

    def draft(self, name: SetName) -> Draft:
        """Begin a set. Two drafts of one name do not disturb each other: the first commit wins."""

    def names(self, plan: PlanName | None = None) -> Iterator[SetName]:
        """The committed sets, in no order."""

    def exists(self, name: SetName) -> bool:
        """Whether the set is committed."""

    def read(self, name: SetName, file: str) -> bytes:
        """A small file of a committed set, for instance its manifest. Raises SetMissing."""

    def stream(self, name: SetName, file: str) -> Iterator[bytes]:
        """A file of a committed set in order, in chunks of at most a few MiB, unchecked. Raises SetMissing."""

    def read_range(self, name: SetName, file: str, offset: int, length: int) -> bytes:
        """These bytes of the file; fewer only at its end. Raises SetMissing."""

    def tree(self, name: SetName, tree: str) -> Path:
        """The directory of a tree of a committed set. Raises SetMissing, also in a store that holds files only."""

    def size(self, name: SetName, file: str) -> int:
        """Bytes of a file of a committed set. Raises SetMissing."""

    def expire(self, name: SetName) -> None:
        """Make the set not exist, manifest first; gone already is fine."""

    def read_lease(self, name: SetName) -> bytes | None:
        """The lease record of a set, committed or not; None where there is none."""

    def swap_lease(self, name: SetName, old: bytes | None, new: bytes | None) -> bool:
        """Put `new` in the place of `old` in one step, only where the record is exactly `old`; says whether it did.

        None stands for no record, on both sides. False also where somebody else is changing the record right now.
        Raises StoreUnavailable or StoreRefused: nobody knows then which of the two is there. A record need not survive
        a power cut; what is left of it may be damaged. What it says is the business of `worker.lease` alone.
        """

    def notes(self, plan: PlanName, kind: str) -> Mapping[str, bytes]:
        """The notes of a kind about a plan's sets: names to contents, empty where there are none.

        A note is a small record beside the sets, and outlives the journal and the plan's configuration. Contents are
        as they were put or, where somebody meddled with them, as they are: what they say is the caller's business.
        What a `put_note` or `drop_note` that has returned did, anywhere, is seen. Raises StoreUnavailable or
        StoreRefused, also where a single note cannot be read: none is ever left out.
        """

    def put_note(self, plan: PlanName, kind: str, name: str, content: bytes, *, replace: bool) -> bool:
        """Make a note; False, and nothing changed, where there is one of this name and `replace` is false.

        In one step: readers see the old note, or none, or the new one. On return it survives a power cut. Of several
        who make the same one without `replace`, one alone hears True. After StoreUnavailable or StoreRefused nobody
        knows whether it is there.
        """

    def drop_note(self, plan: PlanName, kind: str, name: str) -> None:
        """Remove a note; gone already is fine. On return it stays gone after a power cut."""

    def noted_plans(self) -> Iterator[PlanName]:
        """The plans that have a note of any kind, in no order, each once; they need not have a set."""

    def sweep(self) -> int:
        """Remove what dead writers left behind, by their own records; never touches a living one. Says how many.

        So it does with leases that are of no use any more, because their set is committed.
        """

    def free_bytes(self) -> int | None:
        """Room that is left; None where the store has no such notion."""

    def check(self) -> None:
        """Try the store for real: write, read back, remove. Raises StoreUnavailable or StoreRefused."""
