"""Snapshots of GNU tar, as they are read and trimmed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from handlers.errors import IntegrityError
from handlers.tools.tar.in_place import directories_in_place
from handlers.tools.tar.moves import snapshot_directories

HEAD = b"GNU tar-1.34-2\n1795234078\x00371335249\x00"


def entry(name: bytes, inode: int, *names: bytes) -> bytes:
    return b"\0".join([b"0", b"1", b"2", b"65024", b"%d" % inode, name, *names, b"", b"", b""])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A subject with two directories and a file."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_text("x")
    return tmp_path


def test_directories_that_are_where_they_were_stay_to_the_byte(root: Path) -> None:
    """However the snapshot is cut into chunks."""
    snapshot = HEAD + entry(b"./kept", (root / "kept").stat().st_ino, b"Yf", b"Dd") + entry(b".", root.stat().st_ino)

    found = b"".join(directories_in_place((snapshot[at : at + 7] for at in range(0, len(snapshot), 7)), root))

    assert found == snapshot


def test_directories_that_are_gone_or_replaced_are_taken_out(root: Path) -> None:
    """By name and inode: what has the name now is another directory."""
    kept = entry(b"./kept", (root / "kept").stat().st_ino, b"Yf")
    moved = entry(b"./other", (root / "kept").stat().st_ino + 1_000_000, b"Yf")
    gone = entry(b"./gone", 5, b"Yf", b"Nx")

    assert b"".join(directories_in_place([HEAD + moved + kept + gone], root)) == HEAD + kept


@pytest.mark.parametrize("read", [directories_in_place, lambda chunks, root: snapshot_directories(chunks)])
@pytest.mark.parametrize("end", [-1, -2, -9, 12])
def test_a_torn_snapshot_is_an_integrity_error(
    root: Path, end: int, read: Callable[[Iterable[bytes], Path], Iterable[bytes]]
) -> None:
    """Half a snapshot would make GNU tar archive too little, or too much."""
    snapshot = HEAD + entry(b"./kept", 5, b"Yf")

    with pytest.raises(IntegrityError, match="snapshot"):
        list(read([snapshot[:end]], root))


def test_a_snapshot_tells_its_directories() -> None:
    """As paths; one that leads out is refused."""
    assert list(snapshot_directories([HEAD + entry(b".", 1, b"Da") + entry(b"./a", 2)])) == [b"", b"a"]

    with pytest.raises(IntegrityError, match="unsafe"):
        list(snapshot_directories([HEAD + entry(b"../a", 1)]))
