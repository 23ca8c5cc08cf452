"""Verification of sets with trees: what a store gives back is compared with what the manifest tells of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.contract import Part, PartWriter, Progress
from handlers.errors import Cancelled, IntegrityError
from handlers.tools.trees import listing
from tests.workshop.histories import made
from tests.workshop.stocked import catalog_of, named
from worker.catalog import StoredSet
from worker.manifest import GUIDE, SUMS, PartRecord, TreeRecord, sums
from worker.stores.local import LocalStore
from worker.verify import check_parts

TREE = "peers"


class Recorder:
    """A control that remembers what it was told, and stops when it is told to."""

    def __init__(self, *, stop: bool = False) -> None:
        self.read: list[int] = []
        self._stop = stop

    def checkpoint(self) -> None:
        """Stop, or go on."""
        if self._stop:
            raise Cancelled("asked to stop")

    def report(self, progress: Progress) -> None:
        """Remember."""
        self.read.append(progress.bytes_in)

    def started(self) -> None:
        """Nothing to do."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return LocalStore("nas", path)


def stored(store: LocalStore, *, files: int = 0, size_bytes: int = 0, unlisted: bool = False) -> StoredSet:
    """A committed set with a tree; the manifest's counts are wrong by so much."""
    draft = store.draft(named("s1"))
    top = draft.open_tree(TREE)
    (top / "web").mkdir()
    (top / "web" / "dump").write_bytes(b"rows" * 1000)
    (top / "web" / "again").hardlink_to(top / "web" / "dump")
    (top / "web" / "latest").symlink_to("dump")
    (top / "db").mkdir(mode=0o750)
    opened: list[PartWriter] = []

    def open_part(name: str) -> PartWriter:
        opened.append(draft.open_part(name))
        return opened[-1]

    listed = listing.write(top, TREE, open_part, problem=lambda _: None, checkpoint=lambda: None, report=lambda _: None)
    parts: tuple[Part, ...] = () if unlisted else listed.parts
    tree = TreeRecord.of(listed.tree(TREE))
    wrong = tree.model_copy(update={"files": tree.files + files, "bytes": tree.bytes + size_bytes})
    records = tuple(PartRecord.of(part) for part in parts)
    manifest = made("s1", 0).model_copy(update={"parts": records, "trees": (wrong,)})
    draft.commit({SUMS: sums(records), GUIDE: b"how"}, manifest.encode())
    return catalog_of(store).read(store, named("s1"))


def test_sound_tree_is_read_whole(store: LocalStore) -> None:
    """Every byte of parts and tree is counted, a file with two names once."""
    found = stored(store)
    control = Recorder()

    check_parts(found, control)

    assert found.trees[TREE].files == 5
    assert found.trees[TREE].size_bytes == 4000
    assert control.read == sorted(control.read)
    assert control.read[-1] >= 4000 + sum(part.size_bytes for part in found.parts.values())


def rot(top: Path) -> None:
    """One bit turns; the file looks as before."""
    file = top / "web" / "dump"
    about = file.stat()
    with file.open("r+b") as content:
        content.write(b"R")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


def replace_by_link(top: Path) -> None:
    """What is behind a link is no tree of the set."""
    top.rename(top.with_name("aside"))
    top.symlink_to("aside")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "rot": (rot, "web/.*SHA-256"),
    "missing": (lambda top: (top / "web" / "latest").unlink(), "'web"),
    "extra": (lambda top: (top / "db" / "new").touch(), "db"),
    "mode": (lambda top: (top / "db").chmod(0o700), "db' .*mode"),
    "link": (replace_by_link, "tree peers of set web/s1 is missing from store nas"),
    "gone": (lambda top: top.rename(top.with_name("aside")), "tree peers of set web/s1 is missing from store nas"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_tree_is_found(store: LocalStore, damage: str) -> None:
    """The message names the set, and what is wrong first."""
    found = stored(store)
    harm, words = DAMAGES[damage]
    harm(store.tree(named("s1"), TREE))

    with pytest.raises(IntegrityError, match=words) as error:
        check_parts(found, Recorder())

    assert "set web/s1" in error.value.message


@pytest.mark.parametrize(("files", "size_bytes"), [(1, 0), (0, -1)])
def test_manifest_that_counts_otherwise_is_found(store: LocalStore, files: int, size_bytes: int) -> None:
    """A listing that was written for another tree would agree with that one."""
    found = stored(store, files=files, size_bytes=size_bytes)

    with pytest.raises(IntegrityError, match="but its manifest tells of"):
        check_parts(found, Recorder())


def test_tree_without_its_listing_is_not_sound(store: LocalStore) -> None:
    """Nobody can tell what belongs there."""
    found = stored(store, unlisted=True)

    with pytest.raises(IntegrityError, match=r"no part peers\.mtree\.zst"):
        check_parts(found, Recorder())


def test_damaged_listing_is_found(store: LocalStore) -> None:
    """It is a part like any other, and is read first."""
    found = stored(store)
    part = store.path / "web" / "s1" / "peers.mtree.zst"
    part.chmod(0o600)
    part.write_bytes(b"x" * part.stat().st_size)

    with pytest.raises(IntegrityError, match=r"part peers\.mtree\.zst of set web/s1"):
        check_parts(found, Recorder())


def test_verification_of_a_tree_can_be_stopped(store: LocalStore) -> None:
    """At a checkpoint on the way."""
    with pytest.raises(Cancelled):
        check_parts(stored(store), Recorder(stop=True))
