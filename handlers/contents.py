"""What a handler shows of a set without restoring it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

from handlers.contract import BackupId, ProblemKind


class EntryType(StrEnum):
    """What a name in a directory is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    BLOCK_DEVICE = "block_device"
    CHARACTER_DEVICE = "character_device"
    UNKNOWN = "unknown"
    """Of a file that is not in the set."""


class Entry(NamedTuple):
    """One name in a directory, as it was when a set was made. A plain tuple: there may be millions."""

    path: bytes
    """Relative to the subject; `.` for the top directory."""
    type: EntryType
    size: int = 0
    """Bytes of a regular file, holes included."""
    mode: int | None = None
    """The permission bits. None, as with the owner and the time, where no set says: see `missing`; and of a directory
    of which the plan only names something below."""
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    target: bytes | None = None
    """What a symbolic link says."""
    device: tuple[int, int] | None = None
    """Major and minor number."""
    held_by: BackupId | None = None
    """The set of the chain that has it: an older one for what did not change since."""
    place: tuple[int, int, bytes] | None = None
    """For the handler. Hard links to one file have the same place, whatever their names."""
    missing: ProblemKind | None = None
    """Why no set has it although the directory had it: it could not be read, is a socket, or went away meanwhile."""
    outdated: ProblemKind | None = None
    """Why it is as an older set has it, `held_by`, although it may have changed since: the same reasons."""


class Contents(Protocol):
    """The state of the last set of a chain, to look into without restoring it. For one thread at a time."""

    @property
    def bytes_read(self) -> int:
        """Stored bytes that were fetched so far."""

    def look(self, path: bytes) -> tuple[Entry, Iterator[Entry]] | None:
        """What is at this path and, of a directory, what is in it, sorted by name; None where there is nothing.

        Raises IntegrityError where the set is not what was written, PermanentError for a path that can be in no set.
        """

    def walk(self, directory: bytes) -> Iterator[Entry]:
        """All below a directory, one directory after the other: sorted by the directory's path, then by name.

        The order is the same for every set, so that two of them can be compared as they come. The top directory itself
        is left out. Memory does not grow with the number of files; temporary files do.
        """

    def read(self, entry: Entry, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The content of a regular file that `look` or `walk` gave, holes as zeros, or only `length` bytes from offset.

        Only what is needed is fetched, and checked before any of it is yielded. Raises IntegrityError.
        """
