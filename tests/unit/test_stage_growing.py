"""A file that grows faster than it is read is left, and called changed; whoever reads it can be stopped at any time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.errors import Cancelled, TemporaryError
from handlers.tools.peers.files import Dress, Taken, take
from handlers.tools.peers.pulse import Pulse, Tally
from handlers.tools.trees.reading import LOOK, Asked, Content, read_in_order
from handlers.tools.trees.reading import Pulse as ReadingPulse

MIB = 1 << 20
SIZES = pytest.mark.parametrize("size", [1, MIB, 9 * MIB])


class Growth:
    """Appends more to a file than was read of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = 200

    def more(self, read: int) -> None:
        """Fails the test where nobody ever stops reading."""
        self._left -= 1
        assert self._left > 0, "it reads for ever"
        with self._path.open("ab") as file:
            file.write(b"x" * (read + 1))


class Watched(Tally):
    """Tells how many bytes went by."""

    def __init__(self, seen: Callable[[int], None]) -> None:
        super().__init__()
        self._seen = seen

    def add(self, files: int, size_bytes: int) -> None:
        """So many more."""
        super().add(files, size_bytes)
        self._seen(size_bytes)


class WatchedReading(ReadingPulse):
    """The same where a tree is read."""

    def __init__(self, seen: Callable[[int], None]) -> None:
        super().__init__(lambda: None, lambda size: None)
        self._seen = seen

    def count(self, size_bytes: int) -> None:
        """So many more."""
        super().count(size_bytes)
        self._seen(size_bytes)


def taken(place: Path, pulse: Pulse) -> Taken:
    """`log` of this directory in another one beside it."""
    (place / "set").mkdir()
    at, to = (os.open(directory, os.O_RDONLY) for directory in (place, place / "set"))
    try:
        return take(at, to, b"log", Dress(), pulse)
    finally:
        os.close(at)
        os.close(to)


@SIZES
def test_a_file_that_grows_while_it_is_taken_is_no_endless_one(tmp_path: Path, size: int) -> None:
    """One byte more than it had is proof enough that it changed."""
    log = tmp_path / "log"
    log.write_bytes(bytes(size))

    found = taken(tmp_path, Pulse(Watched(Growth(log).more), 60))

    assert not found.settled
    assert (tmp_path / "set" / "log").stat().st_size < log.stat().st_size


@pytest.mark.parametrize("size", [7 * MIB, 9 * MIB])
def test_a_deadline_ends_the_reading_of_a_file(tmp_path: Path, size: int) -> None:
    """Also where no rate is set; nothing is left of it."""
    (tmp_path / "log").write_bytes(bytes(size))

    with pytest.raises(TemporaryError, match="it took longer"):
        taken(tmp_path, Pulse(Tally(), 0.0))

    assert list((tmp_path / "set").iterdir()) == []


def test_whoever_stops_the_run_need_not_wait_for_a_file(tmp_path: Path) -> None:
    """It ends after the piece that is being read."""
    (tmp_path / "log").write_bytes(bytes(7 * MIB))
    read: list[int] = []

    def stop(size: int) -> None:
        read.append(size)
        tally.stop.set()

    tally = Watched(stop)

    with pytest.raises(Cancelled):
        taken(tmp_path, Pulse(tally, 60))

    assert len(read) == 1


@SIZES
def test_a_file_that_grows_while_a_tree_is_read_is_no_endless_one(tmp_path: Path, size: int) -> None:
    """For a listing, and for a verification."""
    log = tmp_path / "log"
    log.write_bytes(bytes(size))
    descriptor = os.open(log, LOOK)
    asked = [Asked(b"log", os.fstat(descriptor), descriptor)]

    ((_, content),) = list(read_in_order(asked, WatchedReading(Growth(log).more)))

    assert isinstance(content, Content)
    assert content.changed
