"""Files that a new directory shares with old ones: their other names are struck out of the snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.tools.tar.in_place import directories_in_place
from handlers.tools.tar.records import END, Record, Records
from handlers.tools.tar.shared import Newcomers

HEAD = b"GNU tar-1.34-2\n1700000000\x000\0"


def entry(root: Path, name: str) -> bytes:
    """A directory's record with what is in it now."""
    place = root / name
    about = place.lstat()
    names = sorted(
        (b"D" if found.is_dir() and not found.is_symlink() else b"Y") + os.fsencode(found.name)
        for found in place.iterdir()
    )
    shown = b"." if name == "." else b"./" + os.fsencode(name)
    return b"\0".join([b"0", b"0", b"0", b"1", b"%d" % about.st_ino, shown, *names]) + END


def snapshot_of(root: Path) -> bytes:
    """All directories."""
    places = [".", *sorted(str(place.relative_to(root)) for place in root.rglob("*") if place.is_dir())]
    return HEAD + b"".join(entry(root, place) for place in places)


def brought(snapshot: bytes, root: Path, most: int = 1000) -> tuple[Newcomers, dict[bytes, list[bytes]]]:
    """What GNU tar would get: names by directory."""
    newcomers = Newcomers(root, lambda: None, most)
    kept = b"".join(directories_in_place([snapshot], root, out_of_place=newcomers.instead, changed=newcomers.within))
    if newcomers:
        kept = b"".join(newcomers.without_shared(Records([kept])))
    return newcomers, {record.name: record.names.split(b"\0") for record in Records([kept])}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`moved` shares `f` with `stays` and `stays/deep`; `own` has two names within it."""
    root = tmp_path / "root"
    for name in ("moved/sub", "stays/deep", "other"):
        (root / name).mkdir(parents=True)
    (root / "moved/sub/f").write_text("f")
    (root / "moved/own").write_text("own")
    os.link(root / "moved/own", root / "moved/own too")
    for name in ("stays/f1", "stays/deep/f2"):
        os.link(root / "moved/sub/f", root / name)
    for name in ("stays/alone", "stays/deep/alone", "other/alone"):
        (root / name).write_text(name)
    return root


def swap(root: Path) -> None:
    """Two directories take each other's names."""
    (root / "moved").rename(root / "t")
    (root / "other").rename(root / "moved")
    (root / "t").rename(root / "other")


MOVES: dict[str, Callable[[Path], object]] = {
    "renamed": lambda root: (root / "moved").rename(root / "new"),
    "moved below another": lambda root: (root / "moved").rename(root / "stays/deep/new"),
    "moved into a new one": lambda root: ((root / "n").mkdir(), (root / "moved").rename(root / "n/new")),
    "one within it": lambda root: (root / "moved/sub").rename(root / "moved/new"),
    "swapped": swap,
    "and a new parent": lambda root: ((root / "moved").rename(root / "t"), (root / "t").rename(root / "other/t")),
}


@pytest.mark.parametrize("how", MOVES)
def test_the_other_names_are_struck_out(root: Path, how: str) -> None:
    """And no others, wherever the directory went."""
    snapshot = snapshot_of(root)
    MOVES[how](root)

    _, names = brought(snapshot, root)

    assert names[b"./stays"] == [b"Ddeep", b"Yalone"]
    assert names[b"./stays/deep"] == [b"Yalone"]


def test_a_directory_that_came_from_elsewhere_is_seen(root: Path, tmp_path: Path) -> None:
    """Nothing of the snapshot is out of place then."""
    (root / "moved").rename(tmp_path / "elsewhere")
    snapshot = snapshot_of(root)
    (tmp_path / "elsewhere").rename(root / "stays/back")

    _, names = brought(snapshot, root)

    assert names[b"./stays"] == [b"Ddeep", b"Yalone"]


def test_the_snapshot_stays_to_the_byte_where_nothing_is_shared(root: Path) -> None:
    """Though a directory is new, and one was changed."""
    (root / "moved/sub/f").unlink()
    (root / "moved/own too").unlink()
    snapshot = snapshot_of(root)
    (root / "moved").rename(root / "new")
    newcomers = Newcomers(root, lambda: None)

    kept = b"".join(directories_in_place([snapshot], root, out_of_place=newcomers.instead, changed=newcomers.within))

    assert not newcomers
    assert b"".join(newcomers.without_shared(Records([kept]))) == kept


def test_when_there_are_too_many_every_file_is_new(root: Path) -> None:
    """Memory is bounded; nothing is lost by archiving more."""
    snapshot = snapshot_of(root)
    (root / "moved").rename(root / "new")

    _, names = brought(snapshot, root, most=1)

    assert names[b"./other"] == [b""]
    assert names[b"./stays"] == [b"Ddeep"]


def test_what_is_gone_or_cannot_be_read_is_no_hindrance(root: Path) -> None:
    """GNU tar will have its say."""
    newcomers = Newcomers(root, lambda: None)
    record = Record(b"", (b"0", b"0"), b"1", b"1", b"./nowhere", b"Yf\0Dd")

    newcomers.instead(record)
    newcomers.within(record)

    assert not newcomers
