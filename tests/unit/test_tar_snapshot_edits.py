"""What is taken out of a snapshot file between two levels, and what is concluded from it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from handlers.contract import FileProblem, ProblemKind
from handlers.errors import IntegrityError
from handlers.tools.tar.listener import Directories
from handlers.tools.tar.lost import Lost, time_to_go_back_to, without_lost
from handlers.tools.tar.records import Record, Records
from handlers.tools.tar.renamed import Displaced

HEAD = b"GNU tar-1.34-2\n1795234078\x00371335249\x00"


def entry(name: bytes, *names: bytes, inode: int = 1, mtime: int = 5) -> bytes:
    """A record as GNU tar writes it."""
    return b"\0".join([b"0", b"%d" % mtime, b"2", b"65024", b"%d" % inode, name, *names, b"", b"", b""])


def record(name: bytes, *names: bytes, inode: int = 1, mtime: int = 5) -> Record:
    """The same, taken apart."""
    (only,) = Records([HEAD + entry(name, *names, inode=inode, mtime=mtime)])
    return only


def struck(lost: Lost, *entries: bytes) -> bytes:
    """What is left of a snapshot with these entries."""
    return b"".join(without_lost(Records([HEAD, *entries]), lost))


def test_a_lost_file_is_struck_out_of_its_directory_alone() -> None:
    """Whatever the letter says; a directory keeps its name, and files of the same name elsewhere stay."""
    lost = Lost()
    for name in (b"./a", b"./d/f", b"./d/sub"):
        lost.add(name, with_its_names=False)
    rest = entry(b"./e", b"Yf", b"Nsub")

    left = struck(lost, entry(b".", b"Na", b"Dd"), entry(b"./d", b"Yf", b"Nff", b"Dsub"), rest)

    assert left == HEAD + entry(b".", b"Dd") + entry(b"./d", b"Nff", b"Dsub") + rest


def test_all_files_of_a_lost_directory_are_struck_out() -> None:
    """Not those of a directory that only changed, and not what is further down."""
    lost = Lost()
    lost.add(b"./d", with_its_names=True)
    lost.add(b"./e", with_its_names=False)
    e, below = entry(b"./e", b"Yf"), entry(b"./d/sub", b"Yf")

    assert struck(lost, entry(b"./d", b"Yf", b"Ng", b"Dsub"), e, below) == HEAD + entry(b"./d", b"Dsub") + e + below


def test_too_many_lost_names_strike_out_all_files() -> None:
    """Those that are not remembered cannot be told from the others."""
    lost = Lost(most=2)
    for number in range(3):
        lost.add(b"./d/%d" % number, with_its_names=False)

    assert struck(lost, entry(b".", b"Ya", b"Dd"), entry(b"./d", b"Y0", b"Y7")) == HEAD + entry(b".", b"Dd") + entry(
        b"./d"
    )


@pytest.mark.parametrize("content", [b"", b"GNU tar-1.34-2\n17952", b"GNU tar-1.15.1-1\n1795234078\0371335249\0", b"x"])
def test_what_is_no_snapshot_of_format_two_is_refused(content: bytes) -> None:
    """GNU tar takes an empty one for none, and would quietly make a level 0."""
    with pytest.raises(IntegrityError, match="unknown format"):
        Records([content])


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
def test_a_snapshot_may_come_in_any_pieces(chunk: int) -> None:
    """Nothing depends on where they are cut."""
    content = HEAD + entry(b".", b"Ya", b"Dd") + entry(b"./d") + entry(b"./e", b"Nb")
    records = Records(content[at : at + chunk] for at in range(0, len(content), chunk))

    assert records.head() == HEAD
    assert [(found.name, found.names) for found in records] == [(b".", b"Ya\0Dd"), (b"./d", b""), (b"./e", b"Nb")]


def problem(kind: ProblemKind, path: str) -> FileProblem:
    """One of the parent's."""
    return FileProblem(kind=kind, path=path, detail="")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A file that the plan names, as old as 1000 seconds."""
    path = tmp_path / "named"
    path.write_text("x")
    return path


def test_a_lost_name_of_the_plan_sets_the_time_back_to_its_own(tmp_path: Path, named: Path) -> None:
    """Files that a plan names are in no list: by their time alone GNU tar decides whether they are new."""
    found = named.stat()
    own = max(found.st_mtime_ns, found.st_ctime_ns)
    now = time.time_ns()
    lost = [problem(ProblemKind.UNREADABLE, "named")]

    assert time_to_go_back_to(now, lost, [b"./named"], tmp_path) == own
    assert time_to_go_back_to(now, lost, [b"./other"], tmp_path) == now
    assert time_to_go_back_to(now, [], [b"./named"], tmp_path) == now
    assert time_to_go_back_to(now, [problem(ProblemKind.SOCKET, "named")], [b"./named"], tmp_path) == now
    assert time_to_go_back_to(now, [problem(ProblemKind.UNREADABLE, "gone")], [b"./gone"], tmp_path) == now


def test_a_parent_from_the_future_has_everything_archived_again(tmp_path: Path) -> None:
    """After the clock was set right, all that changed before it comes to that time would look old."""
    assert time_to_go_back_to(time.time_ns() + 10**9, [], [b"."], tmp_path) == 0


def test_a_renamed_directory_is_told_with_its_old_name_and_not_what_moved_along() -> None:
    """By its inode, and by its time or what is in it."""
    displaced = Displaced()
    for old in (
        record(b"./a", b"Yf", b"Dx", inode=7, mtime=1),
        record(b"./a/x", b"Yf", inode=8),
        record(b"./gone", b"Yf", inode=9, mtime=1),
    ):
        displaced.add(old)
    for new in (
        record(b"./b", b"Nf", b"Dx", b"Ynew", inode=7, mtime=2),
        record(b"./b/x", b"Nf", inode=8),
        record(b"./another", b"Yg", inode=9, mtime=2),
        record(b"./new", inode=10),
    ):
        displaced.find(new)

    assert [(told.kind, told.path, told.detail) for told in displaced.problems()] == [
        (ProblemKind.RENAMED, "b", "Directory was a before; it is archived whole")
    ]


LISTING = rb"""block 0: drwxr-xr-x 0/0               0 2026-11-21 04:55:47.734706754 "./"
block 2: drwxr-xr-x 0/0               0 2026-11-21 04:55:47.734706754 "./d/"
block 4: lrwxrwxrwx 0/0               0 2026-11-21 04:55:47.740604919 "./l" -> "./x/"
block 6: drwxr-xr-x 0/0               0 2026-11-21 04:55:47.734706754 "./block 1: d\"./q/\"\n/"
block 8: -rw-r--r-- 0/0               3 2026-11-21 04:55:47.734706754 "./block 9: d "
block 10: hrw-r--r-- 0/0               0 2026-11-21 04:55:47.734706754 "./h" link to "./d/a"
"""


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000])
def test_the_listing_tells_directories_from_everything_else(chunk: int) -> None:
    """However it is cut, and whatever the names look like."""
    directories = Directories()

    for at in range(0, len(LISTING), chunk):
        directories.read(LISTING[at : at + chunk])

    assert directories.names == {b".", b"./d", b'./block 1: d"./q/"\n'}
    assert directories.others == {b"./l", b"./block 9: d ", b"./h"}


def test_only_the_neighbourhood_of_directories_is_read_closely() -> None:
    """A million files behind them cost next to nothing."""
    directories = Directories()
    directories.read(LISTING)
    line = b'block 10: -rw-r--r-- 0/0               0 2026-11-21 04:55:47.734706754 "./file-%d"\n'

    for first in range(0, 100_000, 1000):
        directories.read(b"".join(line % number for number in range(first, first + 1000)))

    assert 1000 < len(directories.others) < 10_000
    assert os.fsencode("./file-99999") not in directories.others
