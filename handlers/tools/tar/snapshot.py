"""Carries GNU tar's snapshot file from one level to the next.

The file says what each directory had in it when it was archived. What GNU tar would draw false conclusions from is
taken out on the way: see `tar_in_place` for directories that were renamed, `tar_lost` for files that were not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from handlers.contract import SetReader, printable
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from handlers.tools import problem_log
from handlers.tools.process import disk_error
from handlers.tools.tar.in_place import directories_in_place
from handlers.tools.tar.listener import Directories
from handlers.tools.tar.lost import Lost, time_to_go_back_to, without_lost
from handlers.tools.tar.records import Record, Records
from handlers.tools.tar.renamed import Displaced
from handlers.tools.tar.shared import Newcomers
from handlers.tools.tar.stored_set import TarSet

_CHUNK_BYTES = 1 << 20
_RECORDS_BETWEEN_CHECKPOINTS = 1000


def bring(
    parent: SetReader,
    snapshot: Path,
    root: Path,
    wanted: Sequence[bytes],
    checkpoint: Callable[[], None],
) -> Displaced:
    """Copy the snapshot after the parent's level to this new file, for tar to update, without renamed directories.

    `wanted` are the names of the plan, as tar is given them. Returns the directories that are not where they were.
    Raises IntegrityError when it is not what was written, or no snapshot; TemporaryError when the disk is full.
    """
    displaced = Displaced()
    newcomers = Newcomers(root, checkpoint)

    def out_of_place(record: Record) -> None:
        displaced.add(record)
        newcomers.instead(record)

    def since(time_ns: int) -> int:
        return time_to_go_back_to(time_ns, problem_log.read(parent), wanted, root)

    try:
        with snapshot.open("xb") as file:
            stored = TarSet(parent).snapshot()
            for chunk in directories_in_place(
                stored, root, since=since, out_of_place=out_of_place, changed=newcomers.within
            ):
                checkpoint()
                file.write(chunk)
        if newcomers:
            _rewrite(snapshot, newcomers)
    except IntegrityError as error:
        raise IntegrityError(f"the snapshot in set {parent.backup_id}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise disk_error(error, f"cannot write {snapshot}") from error
    return displaced


def _rewrite(snapshot: Path, newcomers: Newcomers) -> None:
    written = snapshot.with_name(f"{snapshot.name}.shared")
    with written.open("xb") as file:
        file.writelines(newcomers.without_shared(Records(_chunks(snapshot))))
    written.replace(snapshot)


def look_over(snapshot: Path, directories: Directories, displaced: Displaced, checkpoint: Callable[[], None]) -> None:
    """Compare the snapshot that tar wrote with what it archived.

    Tar first looks through all directories, then archives them, then the files. Where a directory becomes something
    else in between, or a file becomes a directory, the archive says both, and GNU tar cannot unpack it over the level
    before. Raises TemporaryError then: a moment later the subject is one or the other. `displaced` learns where its
    directories are now; `directories` is used up.
    """
    for number, record in enumerate(_records(snapshot)):
        if number % _RECORDS_BETWEEN_CHECKPOINTS == 0:
            checkpoint()
        if displaced:
            displaced.find(record)
        if record.name in directories.others:
            raise _replaced(record.name)
        directories.names.discard(record.name)
    for name in directories.names:
        raise _replaced(name)


def _replaced(name: bytes) -> TemporaryError:
    return TemporaryError(
        f"{printable(name.removeprefix(b'./'))} was replaced while tar read the subject: "
        "by a directory, or by something else where a directory was",
        hint="the next try reads what is there then",
    )


def read(snapshot: Path, lost: Lost) -> Iterator[bytes]:
    """The snapshot's bytes in order, without the names that were lost.

    Raises TemporaryError when it cannot be read, PermanentError when GNU tar wrote it in a format we do not know.
    """
    chunks = _chunks(snapshot)
    try:
        yield from without_lost(Records(chunks), lost) if lost else chunks
    except IntegrityError as error:
        raise PermanentError(f"what GNU tar wrote: {error.message}") from error


def _records(snapshot: Path) -> Iterator[Record]:
    try:
        yield from Records(_chunks(snapshot))
    except IntegrityError as error:
        raise PermanentError(f"what GNU tar wrote: {error.message}") from error


def _chunks(snapshot: Path) -> Iterator[bytes]:
    try:
        with snapshot.open("rb") as file:
            yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
    except OSError as error:
        raise disk_error(error, f"cannot read {snapshot}") from error
