"""Which names may become files or keys of a store.

Pure. Names are validated where they enter; this is the second door, so that a bug elsewhere can never write outside
the store or over the store's own files.
"""

from __future__ import annotations

from collections.abc import Iterable

from worker.manifest import MANIFEST
from worker.stores.protocol import SetName

MAX_NAME_BYTES = 200
"""Room is left for what a store appends; file systems stop at 255."""
MAX_LEASE_BYTES = 4096
MAX_NOTE_BYTES = 16_384


def checked_name(name: str) -> str:
    """The name, if it is one harmless path component that is not hidden. Raises ValueError."""
    forbidden = not name or name.startswith(".") or "/" in name or not name.isprintable()
    if forbidden or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise ValueError(f"not a name for a file of a set: {name!r}")
    return name


def is_harmless(name: str) -> bool:
    """Whether `checked_name` takes it: what a store finds under another name is not its own."""
    try:
        checked_name(name)
    except ValueError:
        return False
    return True


def checked_set(name: SetName) -> SetName:
    """The set's name, if both halves are harmless. Raises ValueError."""
    checked_name(name.plan)
    checked_name(name.backup_id)
    return name


def checked_part(name: str, taken: Iterable[str]) -> str:
    """The name of a new part: harmless, not the manifest's, not used before in this set. Raises ValueError."""
    if checked_name(name) == MANIFEST:
        raise ValueError(f"{MANIFEST} is written by the commit alone")
    if name in taken:
        raise ValueError(f"the set has a file {name!r} already")
    return name


def checked_files(names: Iterable[str], parts: Iterable[str]) -> None:
    """Whether the small files of a commit may stand beside these parts. Raises ValueError."""
    taken = set(parts)
    for name in names:
        checked_part(name, taken)


def checked_lease(record: bytes | None) -> bytes | None:
    """The record, if it is a small one. Raises ValueError, also for an empty one: that stands for none in a store."""
    if record is not None and not 0 < len(record) <= MAX_LEASE_BYTES:
        raise ValueError(f"a lease record has 1 to {MAX_LEASE_BYTES} bytes, not {len(record)}")
    return record


def checked_note(content: bytes) -> bytes:
    """The content, if it is a small one. Raises ValueError, also for an empty one: that would look like a torn note."""
    if not 0 < len(content) <= MAX_NOTE_BYTES:
        raise ValueError(f"a note has 1 to {MAX_NOTE_BYTES} bytes, not {len(content)}")
    return content
