"""Carries GNU tar's snapshot file from one level to the next.

The file says what each directory had in it when it was archived. GNU tar notes a name there even when it could not
read the file, and takes the file for archived ever after, unless its own times change: one that becomes readable
because a directory above it does would be in no level at all. So names that were lost are struck out; a name
that the snapshot does not know is new to the next level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from handlers.contract import SetReader
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.process import disk_error
from handlers.tools.tar_in_place import directories_in_place
from handlers.tools.tar_set import TarSet

MAX_LOST = 100_000
"""Lost names that are remembered one by one; when there are more, the next level archives every file again."""

_CHUNK_BYTES = 1 << 20
_MAGIC = b"GNU tar-"
_FORMAT = b"-2"
"""How the first line of a snapshot that GNU tar writes today ends. Source: GNU tar manual, "Snapshot Files"."""


class Lost:
    """The names that should be in the archive and are not, as tar knows them (`./dir/file`)."""

    def __init__(self) -> None:
        self._names: set[bytes] = set()
        self._too_many = False

    def add(self, name: bytes) -> None:
        """One more."""
        if len(self._names) < MAX_LOST:
            self._names.add(name)
        else:
            self._too_many = True

    def __bool__(self) -> bool:
        return bool(self._names)

    def has(self, name: bytes) -> bool:
        """Whether the next level has to take this name for new."""
        return self._too_many or name in self._names


def bring(parent: SetReader, snapshot: Path, root: Path, checkpoint: Callable[[], None]) -> None:
    """Copy the snapshot after the parent's level to this new file, for tar to update, without renamed directories.

    Raises IntegrityError when it is not what was written, or no snapshot; TemporaryError when the disk is full.
    """
    try:
        with snapshot.open("xb") as file:
            for chunk in directories_in_place(TarSet(parent).snapshot(), root):
                checkpoint()
                file.write(chunk)
        with snapshot.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except OSError as error:
        raise disk_error(error, f"cannot write {snapshot}") from error
    # GNU tar takes an empty snapshot for none, and would quietly make a level 0.
    if begin != _MAGIC:
        raise IntegrityError(f"the snapshot in set {parent.backup_id} is none of GNU tar's")


def read(snapshot: Path, lost: Lost) -> Iterator[bytes]:
    """The snapshot's bytes in order, without the names that were lost.

    Raises TemporaryError when it cannot be read.
    """
    try:
        with snapshot.open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
            yield from _without(chunks, lost) if lost else chunks
    except OSError as error:
        raise disk_error(error, f"cannot read {snapshot}") from error


def _without(chunks: Iterator[bytes], lost: Lost) -> Iterator[bytes]:
    """Strike out names. A record: six fields, the last one the directory; its names; an empty field; another one."""
    fields = _fields(chunks)
    line, newline, first = next(fields, b"").partition(b"\n")
    if not newline or not line.startswith(_MAGIC) or not line.endswith(_FORMAT):
        raise PermanentError(f"GNU tar wrote a snapshot of unknown format: {line[:60]!r}")
    yield b"\0".join((line + newline + first, next(fields, b""), b""))
    for field in fields:
        record = [field, *(next(fields, b"") for _ in range(5))]
        directory = record[-1]
        names = iter(lambda: next(fields, b""), b"")
        # D is a directory: those have records of their own.
        record += (name for name in names if name[:1] == b"D" or not lost.has(directory + b"/" + name[1:]))
        record += (b"", next(fields, b""), b"")
        yield b"\0".join(record)


def _fields(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What stands before each zero byte."""
    rest = b""
    for chunk in chunks:
        *fields, rest = (rest + chunk).split(b"\0")
        yield from fields
